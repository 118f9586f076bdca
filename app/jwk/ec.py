"""Keys on the curves of NIST (RFC 7518 §6.2), and on secp256k1 (RFC 8812)."""

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

import hsm
from app.errors import BadRequest
from app.jose import encoding
from app.jwk.key_type import PairType
from app.jwk.members import (
    REFUSED,
    Members,
    Octets,
    require_bytes,
    require_computed,
    require_given,
)
from hsm import KeySpec

_CRVS: Final = tuple(hsm.WEIERSTRASS_CURVES)
_CRV_OF: Final[Mapping[str, str]] = MappingProxyType(
    {curve.name: crv for crv, curve in hsm.WEIERSTRASS_CURVES.items()}
)
_UNCOMPRESSED: Final = b"\x04"


def _read_private(spec: KeySpec, members: Members) -> ec.EllipticCurvePrivateKey:
    """Return the key of the scalar ``d``, ceil(log2(n)/8) bytes long (RFC 7518 §6.2.2.1).

    ``x`` and ``y`` are compared with the computed point, each if given (§6.2.1.2, §6.2.1.3); a
    point off the curve is never used for anything.
    """
    d = require_given(members, "d", f"a key of type '{spec.kty}'")
    curve = _curve(str(spec.crv))
    require_bytes("d", d, _coordinate_bytes(curve))
    private_key = _key_of(curve, int.from_bytes(d))
    for name, coordinate in _coordinates(private_key.public_key()).items():
        require_computed(name, members.get(name), coordinate)
    return private_key


def _curve(crv: str) -> ec.EllipticCurve:
    if crv not in hsm.WEIERSTRASS_CURVES:
        known = ", ".join(_CRVS)
        raise BadRequest(f"Field 'crv' must be one of these for key type 'EC': {known}")
    return hsm.WEIERSTRASS_CURVES[crv]


def _coordinate_bytes(curve: ec.EllipticCurve) -> int:
    return (curve.key_size + 7) // 8


def _key_of(curve: ec.EllipticCurve, d: int) -> ec.EllipticCurvePrivateKey:
    """Return the key of ``d`` if 1 <= d < n (SEC 1 §3.2.1)."""
    with suppress(*REFUSED):
        if 1 <= d < curve.group_order:
            return ec.derive_private_key(d, curve)
    raise BadRequest("Field 'd' is not a private key of the curve")


def _coordinates(key: ec.EllipticCurvePublicKey) -> Octets:
    """Return ``x`` and ``y`` (RFC 7518 §6.2.1.2, §6.2.1.3)."""
    point, size_bytes = key.public_numbers(), _coordinate_bytes(key.curve)
    return {"x": point.x.to_bytes(size_bytes), "y": point.y.to_bytes(size_bytes)}


def _read_public(crv: str, octets: Octets) -> ec.EllipticCurvePublicKey:
    """Return the key of a point, which must be on the curve, and reduced (RFC 7518 §6.2.1).

    The point at infinity has no coordinates.
    """
    curve, x, y = _curve(crv), octets["x"], octets["y"]
    require_bytes("x", x, _coordinate_bytes(curve))
    require_bytes("y", y, _coordinate_bytes(curve))
    with suppress(*REFUSED):
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, _UNCOMPRESSED + x + y)
    raise BadRequest("Fields 'x' and 'y' are not a point of the curve")


def _write_public(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    coordinates = {name: encoding.encode(octets) for name, octets in _coordinates(key).items()}
    return {"kty": "EC", "crv": _CRV_OF[key.curve.name], **coordinates}


EC: Final = PairType(
    kty="EC",
    public_members=("x", "y"),
    private_members=("d",),
    imported_members=("d",),
    public_keys=(ec.EllipticCurvePublicKey,),
    read_private=_read_private,
    read_public=_read_public,
    read_epk=_read_public,
    load_public=_read_public,
    write_public=_write_public,
    encryption_alg="ECDH-ES",
    crvs=_CRVS,
    signing_crvs=_CRVS,
)
