"""Message authentication codes (RFC 7518 §3.2), made in the token and compared here."""

import hmac

from hsm.algorithms.families import MacAlgorithm
from hsm.cryptoki.handles import Key
from hsm.errors import WrongResult


def compute(secret: Key, row: MacAlgorithm, data: bytes) -> bytes:
    """Return the MAC of ``data``, as long as ``row`` has it."""
    mac = secret.sign(data, mechanism=row.mechanism)
    if len(mac) != row.mac_bytes:
        raise WrongResult("MAC")
    return mac[: row.tag_bytes]


def compute_twice(secret: Key, row: MacAlgorithm, data: bytes) -> bytes:
    """Return the MAC of ``data``; raise ``WrongResult`` if the token gives two."""
    mac = compute(secret, row, data)
    if not hmac.compare_digest(mac, compute(secret, row, data)):
        raise WrongResult("MAC")
    return mac


def verify(secret: Key, row: MacAlgorithm, data: bytes, mac: bytes) -> bool:
    """Tell whether ``mac`` is the MAC of ``data``; of one that is not, only after a second look.

    Compared in constant time here: C_Verify of some tokens compares byte by byte and stops.
    """
    computed = compute(secret, row, data)
    if hmac.compare_digest(computed, mac):
        return True
    if not hmac.compare_digest(computed, compute(secret, row, data)):
        raise WrongResult("MAC")
    return False
