"""Message authentication codes (RFC 7518 §3.2), made in the token and compared here."""

import hmac

from hsm.algorithms.families import MacAlgorithm
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.repeated import Repeatedly
from hsm.errors import WrongResult


def compute(keys: Keys, row: MacAlgorithm, data: bytes) -> bytes:
    """Return the MAC of ``data``, as long as ``row`` has it."""
    mac = keys.secrets[0].sign(data, mechanism=row.mechanism)
    if len(mac) != row.mac_bytes:
        raise WrongResult("MAC")
    return mac[: row.tag_bytes]


def compute_twice(keys: Keys, row: MacAlgorithm, data: bytes) -> bytes:
    """Return the MAC of ``data``; raise ``WrongResult`` if the token gives two."""
    mac = compute(keys, row, data)
    if not hmac.compare_digest(mac, compute(keys, row, data)):
        raise WrongResult("MAC")
    return mac


def repeated(keys: Keys, row: MacAlgorithm, *, is_checked: bool) -> Repeatedly | None:
    """Return what does ``compute``, or ``compute_twice``, with many data."""
    sign = keys.secrets[0].repeated("Sign", row.mechanism)
    if sign is None:
        return None

    def mac_of(data: bytes) -> bytes | None:
        mac = sign(data, most_bytes=row.mac_bytes)
        again = sign(data, most_bytes=row.mac_bytes) if is_checked else mac
        if mac is None or again is None:
            return None
        if len(mac) != row.mac_bytes or not hmac.compare_digest(mac, again):
            raise WrongResult("MAC")
        return mac[: row.tag_bytes]

    return mac_of


def repeated_verify(keys: Keys, row: MacAlgorithm) -> Repeatedly | None:
    """Return what does ``verify`` with many data and their MACs; of a bad one it says nothing."""
    mac_of = repeated(keys, row, is_checked=False)
    if mac_of is None:
        return None

    def is_mac(data: bytes, mac: bytes) -> bool | None:
        computed = mac_of(data)
        return True if computed is not None and hmac.compare_digest(computed, mac) else None

    return is_mac


def verify(keys: Keys, row: MacAlgorithm, data: bytes, mac: bytes) -> bool:
    """Tell whether ``mac`` is the MAC of ``data``; of one that is not, only after a second look.

    Compared in constant time here: C_Verify of some tokens compares byte by byte and stops.
    """
    computed = compute(keys, row, data)
    if hmac.compare_digest(computed, mac):
        return True
    if not hmac.compare_digest(computed, compute(keys, row, data)):
        raise WrongResult("MAC")
    return False


def round_trip(keys: Keys, row: MacAlgorithm, message: bytes, claimed: bytes) -> bool:
    """Tell whether the MAC of ``message`` is taken for that of ``claimed``."""
    return verify(keys, row, claimed, compute_twice(keys, row, message))
