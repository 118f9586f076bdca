"""Keys of ``cryptography`` as PKCS#11 attributes, and public objects as keys of ``cryptography``.

Private attributes exist only between here and the one C_CreateObject that imports them.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import Attribute, Object

from hsm.algorithms import CURVES, EC, EDWARDS, ML_DSA, RSA, Curve
from hsm.errors import HsmError

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = (
    rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | mldsa.MLDSA44PublicKey
)
Attributes = dict[Attribute, Any]

_ON_CURVES: Final = (EC.key_type, EDWARDS.key_type)
_UNCOMPRESSED: Final = 0x04
_OCTET_STRING: Final = 0x04
_LONG_FORM: Final = 0x80


def _unsigned(value: int) -> bytes:
    """Return a PKCS#11 "Big integer": big-endian, here without leading zeros."""
    return value.to_bytes((value.bit_length() + 7) // 8)


def octet_string(content: bytes) -> bytes:
    """Return the DER OCTET STRING of ``content`` (shorter than 256 bytes), as CKA_EC_POINT is."""
    length = bytes([len(content)])
    if len(content) >= _LONG_FORM:
        length = b"\x81" + length
    return bytes([_OCTET_STRING]) + length + content


def _point(value: bytes, point_bytes: int) -> bytes:
    """Return the bare point: tokens give CKA_EC_POINT as OCTET STRING or without its header."""
    return value[-point_bytes:]


def _rsa_private(key: rsa.RSAPrivateKey) -> Attributes:
    numbers = key.private_numbers()
    return {
        Attribute.MODULUS: _unsigned(numbers.public_numbers.n),
        Attribute.PUBLIC_EXPONENT: _unsigned(numbers.public_numbers.e),
        Attribute.PRIVATE_EXPONENT: _unsigned(numbers.d),
        Attribute.PRIME_1: _unsigned(numbers.p),
        Attribute.PRIME_2: _unsigned(numbers.q),
        Attribute.EXPONENT_1: _unsigned(numbers.dmp1),
        Attribute.EXPONENT_2: _unsigned(numbers.dmq1),
        Attribute.COEFFICIENT: _unsigned(numbers.iqmp),
    }


def _rsa_public(key: rsa.RSAPublicKey) -> Attributes:
    numbers = key.public_numbers()
    return {
        Attribute.MODULUS: _unsigned(numbers.n),
        Attribute.PUBLIC_EXPONENT: _unsigned(numbers.e),
    }


def _read_rsa(found: Object, _: Curve | None) -> rsa.RSAPublicKey:
    modulus = int.from_bytes(found[Attribute.MODULUS])
    exponent = int.from_bytes(found[Attribute.PUBLIC_EXPONENT])
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _ec_private(key: ec.EllipticCurvePrivateKey) -> Attributes:
    coordinate_bytes = (key.curve.key_size + 7) // 8
    return {Attribute.VALUE: key.private_numbers().private_value.to_bytes(coordinate_bytes)}


def _ec_public(key: ec.EllipticCurvePublicKey) -> Attributes:
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return {Attribute.EC_POINT: octet_string(point)}


def _read_ec(found: Object, curve: Curve | None) -> ec.EllipticCurvePublicKey:
    assert curve is not None  # noqa: S101  # KeySpec gives every EC key a curve
    assert curve.weierstrass is not None  # noqa: S101  # and an EC key one of these
    point = _point(found[Attribute.EC_POINT], 1 + 2 * curve.coordinate_bytes)
    return ec.EllipticCurvePublicKey.from_encoded_point(curve.weierstrass, point)


def _edwards_private(key: ed25519.Ed25519PrivateKey) -> Attributes:
    return {Attribute.VALUE: key.private_bytes_raw()}


def _edwards_public(key: ed25519.Ed25519PublicKey) -> Attributes:
    return {Attribute.EC_POINT: octet_string(key.public_bytes_raw())}


def _read_edwards(found: Object, curve: Curve | None) -> ed25519.Ed25519PublicKey:
    assert curve is not None  # noqa: S101  # KeySpec gives every Edwards key a curve
    point = _point(found[Attribute.EC_POINT], curve.coordinate_bytes)
    return ed25519.Ed25519PublicKey.from_public_bytes(point)


def _read_ml_dsa(found: Object, _: Curve | None) -> mldsa.MLDSA44PublicKey:
    return mldsa.MLDSA44PublicKey.from_public_bytes(found[Attribute.VALUE])


def _not_imported(_: Any) -> Attributes:
    raise HsmError


class Conversion(NamedTuple):
    """How keys of one kind cross the border; ML-DSA keys are not imported."""

    read: Callable[[Object, Curve | None], PublicKey]
    private: Callable[[Any], Attributes] = _not_imported
    public: Callable[[Any], Attributes] = _not_imported


CONVERSIONS: Final[Mapping[str, Conversion]] = MappingProxyType(
    {
        RSA.name: Conversion(_read_rsa, _rsa_private, _rsa_public),
        EC.name: Conversion(_read_ec, _ec_private, _ec_public),
        EDWARDS.name: Conversion(_read_edwards, _edwards_private, _edwards_public),
        ML_DSA.name: Conversion(_read_ml_dsa),
    }
)

_KIND_NAMES: Final = MappingProxyType(
    {kind.key_type: kind.name for kind in (RSA, EC, EDWARDS, ML_DSA)}
)


def read_public(found: Object) -> PublicKey:
    """Return the public object ``found`` as a key; raise ``ValueError`` if it is none."""
    key_type = found[Attribute.KEY_TYPE]
    curve = CURVES.get(found[Attribute.EC_PARAMS]) if key_type in _ON_CURVES else None
    return CONVERSIONS[_KIND_NAMES[key_type]].read(found, curve)
