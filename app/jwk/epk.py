"""Ephemeral public keys of ECDH-ES (RFC 7518 §4.6.1.1), checked before any token sees them.

What the token makes of a point off the curve, or of one of small order, can tell of its key.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import hsm
from app.errors import BadRequest
from app.jose import encoding
from app.jwk import PAIR_TYPES
from hsm import AgreementKey

_ANY: Final = next(iter(hsm.KEY_AGREEMENTS))  # all are on the same curves
_READERS: Final = MappingProxyType(
    {kty: row.read_epk for kty, row in PAIR_TYPES.items() if row.read_epk}
)


def read(epk: Any) -> AgreementKey:
    """Return the key of a header member; raise ``ValueError`` unless everything about it is right.

    The point at infinity has no coordinates, and coordinates that are not reduced are refused.
    """
    if not isinstance(epk, dict) or "d" in epk:
        raise ValueError("not a public key")
    kty, crv = _text(epk, "kty"), _text(epk, "crv")
    if kty not in _READERS or crv not in hsm.algorithms_by_crv(kty, _ANY):
        raise ValueError("not on a curve of ECDH-ES")
    octets = {name: encoding.decode(_text(epk, name)) for name in PAIR_TYPES[kty].public_members}
    try:
        return _READERS[kty](crv, octets)
    except BadRequest as error:
        raise ValueError(str(error)) from None


def _text(epk: Mapping[str, Any], name: str) -> str:
    value = epk.get(name)
    if not isinstance(value, str):
        raise ValueError(f"'{name}' is missing or not a string")  # noqa: TRY004  # one for all
    return value
