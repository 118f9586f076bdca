"""Keys on the curves of RFC 8037."""

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final

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
from hsm import AgreementKey, KeySpec, PrivateKey, PublicKey

_CURVES: Final = MappingProxyType(
    {crv: curve for crv, curve in hsm.CURVES_BY_CRV.items() if curve.public_class}
)
_P25519: Final = 2**255 - 19
_P448: Final = 2**448 - 2**224 - 1
_EDWARDS: Final[Mapping[str, Edwards]] = MappingProxyType(
    {
        "Ed25519": Edwards(
            p=_P25519,
            a=-1,
            d=-121665 * pow(121666, -1, _P25519) % _P25519,
            doublings=3,
            root_exponent=(_P25519 + 3) // 8,
            root_factor=pow(2, (_P25519 - 1) // 4, _P25519),
        ),
        "Ed448": Edwards(
            p=_P448, a=1, d=-39081 % _P448, doublings=2, root_exponent=(_P448 + 1) // 4
        ),
    }
)
"""Those of signatures."""


def _read_private(spec: KeySpec, members: Members) -> PrivateKey:
    """Return the key of the octets ``d`` (RFC 7748 §5, RFC 8032 §5.1.5); any are a key."""
    d = require_given(members, "d", f"a key of type '{spec.kty}'")
    curve = _CURVES[str(spec.crv)]
    require_bytes("d", d, curve.coordinate_bytes)
    convert = curve.private_class.from_private_bytes
    private_key: Any = read(convert, d, "d", f"an {curve.crv} private key")
    require_computed("x", members.get("x"), private_key.public_key().public_bytes_raw())
    key: PrivateKey = private_key
    return key


def _read_public(crv: str, octets: Octets) -> PublicKey:
    """Return the key of a point, which must be on the curve and of large order (RFC 8032 §5.1.3).

    For a point of small order signatures can be made that hold for many messages.
    """
    require(crv in _EDWARDS, f"Field 'crv' must be {' or '.join(_EDWARDS)} for key type 'OKP'")
    require_bytes("x", octets["x"], _CURVES[crv].coordinate_bytes)
    require(_EDWARDS[crv].is_public_key(octets["x"]), "Field 'x' is not a public key of the curve")
    key: PublicKey = _load_public(crv, octets)
    return key


def _load_public(crv: str, octets: Octets) -> Any:
    convert = _CURVES[crv].public_class.from_public_bytes
    return read(convert, octets["x"], "x", "a public key of the curve")


def _read_epk(crv: str, octets: Octets) -> AgreementKey:
    key: AgreementKey = _load_public(crv, octets)
    with suppress(*REFUSED):
        # Z is zero with every private key, or with none (RFC 7748 §6.1); then this raises.
        _CURVES[crv].private_class.generate().exchange(key)
        return key
    raise BadRequest("Field 'x' is a point of small order")


def _write_public(key: Any) -> dict[str, str]:
    crv = next(crv for crv, curve in _CURVES.items() if isinstance(key, curve.public_class))
    return {"kty": "OKP", "crv": crv, "x": encoding.encode(key.public_bytes_raw())}


OKP: Final = PairType(
    kty="OKP",
    public_members=("x",),
    private_members=("d",),
    imported_members=("d",),
    public_keys=tuple(curve.public_class for curve in _CURVES.values()),
    read_private=_read_private,
    read_public=_read_public,
    read_epk=_read_epk,
    load_public=_load_public,
    write_public=_write_public,
    crvs=tuple(_CURVES),
    signing_crvs=tuple(_EDWARDS),
    is_crv_optional=True,
)
