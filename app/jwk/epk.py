"""Ephemeral public keys of ECDH-ES (RFC 7518 §4.6.1.1), checked before any token sees them.

What the token makes of a point off the curve, or of one of small order, can tell of its key.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import x25519

import hsm
from app.errors import BadRequest
from app.jose import encoding
from app.jwk import key_material
from hsm import AgreementKey


def read(epk: Any) -> AgreementKey:
    """Return the key of a header member; raise ``ValueError`` unless everything about it is right.

    The point at infinity has no coordinates, and coordinates that are not reduced are refused.
    """
    if not isinstance(epk, dict) or "d" in epk:
        raise ValueError("not a public key")
    kty, crv = _text(epk, "kty"), _text(epk, "crv")
    if kty not in _READERS or crv not in hsm.algorithms_by_crv(kty, _ANY):
        raise ValueError("not on a curve of ECDH-ES")
    return _READERS[kty](crv, epk)


def _read_ec(crv: str, epk: Mapping[str, Any]) -> AgreementKey:
    x, y = (encoding.decode(_text(epk, name)) for name in ("x", "y"))
    try:
        return key_material.ec_public_key(crv, x, y)
    except BadRequest as error:
        raise ValueError(str(error)) from None


def _read_okp(_crv: str, epk: Mapping[str, Any]) -> AgreementKey:
    try:
        key = x25519.X25519PublicKey.from_public_bytes(encoding.decode(_text(epk, "x")))
        # Z is zero with every private key, or with none (RFC 7748 §6.1); then this raises.
        x25519.X25519PrivateKey.generate().exchange(key)
    except UnsupportedAlgorithm as error:  # the library lacks it, as in FIPS mode
        raise ValueError("not to be checked here") from error
    return key


_ANY: Final = next(iter(hsm.KEY_AGREEMENTS))  # all are on the same curves
_READERS: Final[Mapping[str, Callable[[str, Mapping[str, Any]], AgreementKey]]] = MappingProxyType(
    {"EC": _read_ec, "OKP": _read_okp}
)


def _text(epk: Mapping[str, Any], name: str) -> str:
    value = epk.get(name)
    if not isinstance(value, str):
        raise ValueError(f"'{name}' is missing or not a string")  # noqa: TRY004  # one for all
    return value
