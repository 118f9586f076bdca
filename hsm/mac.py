"""Message authentication codes (RFC 7518 §3.2), made in the token and compared here."""

import hmac

from hsm.algorithms import MacAlgorithm
from hsm.errors import HsmError
from hsm.handles import Key


def compute(secret: Key, row: MacAlgorithm, data: bytes) -> bytes:
    """Return the MAC of ``data``, as long as the hash."""
    mac: bytes = secret.sign(data, mechanism=row.mechanism)
    if len(mac) != row.mac_bytes:
        raise HsmError
    return mac


def verify(secret: Key, row: MacAlgorithm, data: bytes, mac: bytes) -> bool:
    """Tell whether ``mac`` is the MAC of ``data``.

    Compared in constant time here: C_Verify of some tokens compares byte by byte and stops.
    """
    return hmac.compare_digest(compute(secret, row, data), mac)
