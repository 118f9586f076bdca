"""Keys on the curves of RFC 8037: one row for each."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

import hsm
from app.errors import BadRequest
from app.jose import encoding
from app.jwk.edwards import Edwards
from app.jwk.key_type import PairType
from app.jwk.members import (
    REFUSED,
    Members,
    Octets,
    read,
    require,
    require_bytes,
    require_computed,
    require_given,
)
from hsm import AgreementKey, KeySpec, PublicKey

_PrivateKey = ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class _Curve:
    """The classes of keys on a curve, and its numbers if it is one of signatures."""

    private: type[Any]
    public: type[Any]
    edwards: Edwards | None = None


_P25519: Final = 2**255 - 19
_CURVES: Final[Mapping[str, _Curve]] = MappingProxyType(
    {
        "Ed25519": _Curve(
            private=ed25519.Ed25519PrivateKey,
            public=ed25519.Ed25519PublicKey,
            edwards=Edwards(
                p=_P25519,
                a=-1,
                d=-121665 * pow(121666, -1, _P25519) % _P25519,
                doublings=3,
                root_exponent=(_P25519 + 3) // 8,
                root_factor=pow(2, (_P25519 - 1) // 4, _P25519),
            ),
        ),
        "X25519": _Curve(private=x25519.X25519PrivateKey, public=x25519.X25519PublicKey),
    }
)
_EDWARDS: Final[Mapping[str, Edwards]] = MappingProxyType(
    {crv: curve.edwards for crv, curve in _CURVES.items() if curve.edwards}
)
_SIGNING_CRVS: Final = tuple(_EDWARDS)


def _read_private(spec: KeySpec, members: Members) -> _PrivateKey:
    """Return the key of the octets ``d`` (RFC 7748 §5, RFC 8032 §5.1.5); any are a key."""
    d, crv = require_given(members, "d", f"a key of type '{spec.kty}'"), str(spec.crv)
    require_bytes("d", d, hsm.CURVES_BY_CRV[crv].coordinate_bytes)
    convert = _CURVES[crv].private.from_private_bytes
    private_key: _PrivateKey = read(convert, d, "d", f"an {crv} private key")
    require_computed("x", members.get("x"), private_key.public_key().public_bytes_raw())
    return private_key


def _read_public(crv: str, octets: Octets) -> PublicKey:
    """Return the key of a point, which must be on the curve and of large order (RFC 8032 §5.1.3).

    For a point of small order signatures can be made that hold for many messages.
    """
    names = " or ".join(_SIGNING_CRVS)
    require(crv in _EDWARDS, f"Field 'crv' must be {names} for key type 'OKP'")
    require_bytes("x", octets["x"], hsm.CURVES_BY_CRV[crv].coordinate_bytes)
    require(_EDWARDS[crv].is_public_key(octets["x"]), "Field 'x' is not a public key of the curve")
    key: PublicKey = _load_public(crv, octets)
    return key


def _load_public(crv: str, octets: Octets) -> Any:
    convert = _CURVES[crv].public.from_public_bytes
    return read(convert, octets["x"], "x", "a public key of the curve")


def _read_epk(crv: str, octets: Octets) -> AgreementKey:
    key: AgreementKey = _load_public(crv, octets)
    with suppress(*REFUSED):
        # Z is zero with every private key, or with none (RFC 7748 §6.1); then this raises.
        _CURVES[crv].private.generate().exchange(key)
        return key
    raise BadRequest("Field 'x' is a point of small order")


def _write_public(key: Any) -> dict[str, str]:
    crv = next(crv for crv, curve in _CURVES.items() if isinstance(key, curve.public))
    return {"kty": "OKP", "crv": crv, "x": encoding.encode(key.public_bytes_raw())}


OKP: Final = PairType(
    kty="OKP",
    public_members=("x",),
    private_members=("d",),
    imported_members=("d",),
    public_keys=tuple(curve.public for curve in _CURVES.values()),
    read_private=_read_private,
    read_public=_read_public,
    read_epk=_read_epk,
    load_public=_load_public,
    write_public=_write_public,
    crvs=tuple(_CURVES),
    signing_crvs=_SIGNING_CRVS,
    is_crv_optional=True,
)
