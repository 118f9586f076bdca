"""Keys of ``cryptography`` as PKCS#11 attributes, and public objects as keys of ``cryptography``.

Private attributes exist only between here and the one C_CreateObject that imports them.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import Attribute, Object

from hsm.algorithms.kinds import (
    CURVES,
    EC,
    EDWARDS,
    ML_DSA,
    ML_DSA_CLASSES,
    MONTGOMERY,
    RSA,
    AgreementKey,
    Curve,
    PublicKey,
    curve_of_params,
)

Attributes = dict[Attribute, Any]

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


def point_of(key: AgreementKey) -> bytes:
    """Return the bare public point, as CKM_ECDH1_DERIVE takes it of the other side."""
    if isinstance(key, x25519.X25519PublicKey):
        return key.public_bytes_raw()
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


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


def read_rsa(found: Object, _: Curve | None = None) -> rsa.RSAPublicKey:
    """Return the public key that either object of a pair says (PKCS#11 v2.40 §2.1.3)."""
    modulus = int.from_bytes(found[Attribute.MODULUS])
    exponent = int.from_bytes(found[Attribute.PUBLIC_EXPONENT])
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _ec_private(key: ec.EllipticCurvePrivateKey) -> Attributes:
    coordinate_bytes = (key.curve.key_size + 7) // 8
    return {Attribute.VALUE: key.private_numbers().private_value.to_bytes(coordinate_bytes)}


def _ec_public(key: ec.EllipticCurvePublicKey) -> Attributes:
    return {Attribute.EC_POINT: octet_string(point_of(key))}


def _read_on_curve(found: Object, curve: Curve | None) -> PublicKey:
    assert curve is not None  # noqa: S101  # KeySpec gives every such key a curve
    return public_at(curve, found[Attribute.EC_POINT])


def public_at(curve: Curve, value: bytes) -> PublicKey:
    """Return the public key that CKA_EC_POINT says; raise ``ValueError`` if it is none."""
    if curve.weierstrass is not None:
        point = _point(value, 1 + 2 * curve.coordinate_bytes)
        return ec.EllipticCurvePublicKey.from_encoded_point(curve.weierstrass, point)
    public: PublicKey = curve.public_class.from_public_bytes(_point(value, curve.coordinate_bytes))
    return public


def _raw_private(key: Any) -> Attributes:
    return {Attribute.VALUE: key.private_bytes_raw()}


def _raw_public(key: Any) -> Attributes:
    return {Attribute.EC_POINT: octet_string(key.public_bytes_raw())}


def _read_ml_dsa(found: Object, _: Curve | None) -> PublicKey:
    value = found[Attribute.VALUE]
    if len(value) not in ML_DSA_CLASSES:
        raise ValueError("a key of ML-DSA of no known length")
    public: PublicKey = ML_DSA_CLASSES[len(value)].from_public_bytes(value)
    return public


def _seed(key: Any) -> Attributes:
    """Return CKA_SEED, of which the token computes CKA_VALUE (PKCS#11 v3.2)."""
    return {Attribute.SEED: key.private_bytes_raw()}


def _ml_dsa_public(key: Any) -> Attributes:
    return {Attribute.VALUE: key.public_bytes_raw()}


class Conversion(NamedTuple):
    """How keys of one kind cross the border."""

    read: Callable[[Object, Curve | None], PublicKey]
    private: Callable[[Any], Attributes]
    public: Callable[[Any], Attributes]


CONVERSIONS: Final[Mapping[str, Conversion]] = MappingProxyType(
    {
        RSA.name: Conversion(read_rsa, _rsa_private, _rsa_public),
        EC.name: Conversion(_read_on_curve, _ec_private, _ec_public),
        EDWARDS.name: Conversion(_read_on_curve, _raw_private, _raw_public),
        MONTGOMERY.name: Conversion(_read_on_curve, _raw_private, _raw_public),
        ML_DSA.name: Conversion(_read_ml_dsa, _seed, _ml_dsa_public),
    }
)

_KINDS: Final = MappingProxyType({kind.key_type: kind for kind in (RSA, ML_DSA)})
_ON_CURVES: Final = frozenset(
    kind.key_type for curve in CURVES.values() for kind in curve.kind.ways
)


def read_public(found: Object) -> PublicKey:
    """Return the public object ``found`` as a key; raise ``ValueError`` if it is none."""
    key_type = found[Attribute.KEY_TYPE]
    curve = curve_of_params(found[Attribute.EC_PARAMS]) if key_type in _ON_CURVES else None
    kind = curve.kind if curve else _KINDS.get(key_type)
    if kind is None:
        raise ValueError("a key of a kind that we have no algorithm for")
    return CONVERSIONS[kind.name].read(found, curve)
