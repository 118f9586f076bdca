"""What keys are: the kinds that PKCS#11 makes, and the curves that some are on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final, TypeVar, overload

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa, x25519
from pkcs11 import KeyType, Mechanism

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | x25519.X25519PrivateKey
    | mldsa.MLDSA44PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
)
AgreementKey = ec.EllipticCurvePublicKey | x25519.X25519PublicKey
PublicKey = (
    rsa.RSAPublicKey
    | AgreementKey
    | ed25519.Ed25519PublicKey
    | ed448.Ed448PublicKey
    | mldsa.MLDSA44PublicKey
    | mldsa.MLDSA65PublicKey
    | mldsa.MLDSA87PublicKey
)

Numbers = TypeVar("Numbers", bound=IntEnum)


def unnamed(numbers: type[Numbers], name: str, number: int) -> Numbers:
    """Return a number of PKCS#11 v3.0 that python-pkcs11 does not name yet, as one of its own.

    It refuses those that are not.
    """
    member = int.__new__(numbers, number)
    member._name_, member._value_ = name, number
    return member


EC_MONTGOMERY: Final = unnamed(KeyType, "EC_MONTGOMERY", 0x41)
EC_MONTGOMERY_KEY_PAIR_GEN: Final = unnamed(Mechanism, "EC_MONTGOMERY_KEY_PAIR_GEN", 0x1056)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyKind:
    """Keys that PKCS#11 makes alike; ``ktys`` are their JWK names, the preferred one first.

    Where all that they do is of one family, ``has_one_family`` says so. ``others`` are the same
    keys under numbers that other tokens have for them.
    """

    name: str
    ktys: tuple[str, ...]
    key_type: KeyType
    generation: Mechanism
    is_pair: bool = True
    has_one_family: bool = False
    others: tuple["KeyKind", ...] = ()

    @property
    def ways(self) -> tuple["KeyKind", ...]:
        """The same kind under each of its numbers."""
        return (self, *self.others)


AES: Final = KeyKind(
    name="AES",
    ktys=("oct",),
    key_type=KeyType.AES,
    generation=Mechanism.AES_KEY_GEN,
    is_pair=False,
)
HMAC: Final = KeyKind(
    name="HMAC",
    ktys=("oct",),
    key_type=KeyType.GENERIC_SECRET,
    generation=Mechanism.GENERIC_SECRET_KEY_GEN,
    is_pair=False,
)
RSA: Final = KeyKind(
    name="RSA",
    ktys=("RSA",),
    key_type=KeyType.RSA,
    generation=Mechanism.RSA_PKCS_KEY_PAIR_GEN,
)
EC: Final = KeyKind(
    name="EC",
    ktys=("EC",),
    key_type=KeyType.EC,
    generation=Mechanism.EC_KEY_PAIR_GEN,
)
EDWARDS: Final = KeyKind(
    name="Edwards",
    ktys=("OKP",),
    key_type=KeyType.EC_EDWARDS,
    generation=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
)
_MONTGOMERY: Final = KeyKind(
    name="Montgomery",
    ktys=("OKP",),
    key_type=EC_MONTGOMERY,
    generation=EC_MONTGOMERY_KEY_PAIR_GEN,
    has_one_family=True,
)
MONTGOMERY: Final = replace(
    _MONTGOMERY,
    key_type=KeyType.EC_EDWARDS,  # so SoftHSM has it
    generation=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
    others=(_MONTGOMERY,),
)
ML_DSA: Final = KeyKind(
    name="ML-DSA",
    ktys=("AKP",),
    key_type=KeyType.ML_DSA,
    generation=Mechanism.ML_DSA_KEY_PAIR_GEN,
)
OLD_ML_DSA: Final = replace(ML_DSA, ktys=("AKP", "OKP"))
"""The same under the names that there were before RFC 9964."""

KINDS: Final = (AES, HMAC, RSA, EC, EDWARDS, MONTGOMERY, ML_DSA, OLD_ML_DSA)

ML_DSA_CLASSES: Final[Mapping[int, Any]] = MappingProxyType(
    {
        1312: mldsa.MLDSA44PublicKey,
        1952: mldsa.MLDSA65PublicKey,
        2592: mldsa.MLDSA87PublicKey,
    }
)
"""Public keys of ML-DSA by their length in bytes (FIPS 204, table 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A curve (RFC 7518 §6.2.1.1, RFC 8037 §2), and what keys on it are.

    ``ec_params`` is the DER of its OID, and ``printable`` the other name of it (PKCS#11 v3.0
    §2.3.3). A curve of OKP keys has the classes ``public_class`` and
    ``private_class`` of ``cryptography``, the others are a ``weierstrass`` curve of it. ``fips``
    says whether FIPS mode offers it. ``sign_param`` is CK_EDDSA_PARAMS (phFlag, context), where
    signatures on the curve have to have some (PKCS#11 v3.0 §2.3.14).
    """

    crv: str
    kind: KeyKind
    ec_params: bytes
    coordinate_bytes: int
    weierstrass: ec.EllipticCurve | None = None
    public_class: Any = None
    private_class: Any = None
    printable: str = ""
    fips: bool = True
    sign_param: tuple[bool, bytes | None] | None = None

    @property
    def signature_bytes(self) -> int:
        """How long signatures on the curve are: two numbers (RFC 7518 §3.4, RFC 8032 §5)."""
        return 2 * self.coordinate_bytes


P256: Final = Curve(
    crv="P-256",
    kind=EC,
    ec_params=bytes.fromhex("06082a8648ce3d030107"),
    coordinate_bytes=32,
    weierstrass=ec.SECP256R1(),
)
P384: Final = Curve(
    crv="P-384",
    kind=EC,
    ec_params=bytes.fromhex("06052b81040022"),
    coordinate_bytes=48,
    weierstrass=ec.SECP384R1(),
)
P521: Final = Curve(
    crv="P-521",
    kind=EC,
    ec_params=bytes.fromhex("06052b81040023"),
    coordinate_bytes=66,
    weierstrass=ec.SECP521R1(),
)
SECP256K1: Final = Curve(
    crv="secp256k1",
    kind=EC,
    ec_params=bytes.fromhex("06052b8104000a"),
    coordinate_bytes=32,
    weierstrass=ec.SECP256K1(),
    fips=False,
)
ED25519: Final = Curve(
    crv="Ed25519",
    kind=EDWARDS,
    ec_params=bytes.fromhex("06032b6570"),
    coordinate_bytes=32,
    public_class=ed25519.Ed25519PublicKey,
    private_class=ed25519.Ed25519PrivateKey,
    printable="edwards25519",
    fips=False,
)
ED448: Final = Curve(
    crv="Ed448",
    kind=EDWARDS,
    ec_params=bytes.fromhex("06032b6571"),
    coordinate_bytes=57,
    public_class=ed448.Ed448PublicKey,
    private_class=ed448.Ed448PrivateKey,
    printable="edwards448",
    fips=False,
    sign_param=(False, None),
)
X25519: Final = Curve(
    crv="X25519",
    kind=MONTGOMERY,
    ec_params=bytes.fromhex("06032b656e"),
    coordinate_bytes=32,
    public_class=x25519.X25519PublicKey,
    private_class=x25519.X25519PrivateKey,
    printable="curve25519",
    fips=False,
)

CURVES: Final[Mapping[bytes, Curve]] = MappingProxyType(
    {curve.ec_params: curve for curve in (P256, P384, P521, SECP256K1, ED25519, ED448, X25519)}
)
"""Every curve, by its CKA_EC_PARAMS."""

CURVES_BY_CRV: Final[Mapping[str, Curve]] = MappingProxyType(
    {curve.crv: curve for curve in CURVES.values()}
)
"""Every curve, by its JWK name."""

WEIERSTRASS_CURVES: Final[Mapping[str, ec.EllipticCurve]] = MappingProxyType(
    {curve.crv: curve.weierstrass for curve in CURVES.values() if curve.weierstrass}
)
"""The curves of key type EC, by their JWK names."""

_BY_PRINTABLE: Final[Mapping[str, Curve]] = MappingProxyType(
    {curve.printable: curve for curve in CURVES.values() if curve.printable}
)
_PRINTABLE_STRING: Final = 0x13  # its tag in DER; a length follows


def curve_of_params(ec_params: bytes) -> Curve | None:
    """Return the curve of CKA_EC_PARAMS: an OID in DER, or its name as a PrintableString."""
    if ec_params[:1] == bytes([_PRINTABLE_STRING]):
        return _BY_PRINTABLE.get(ec_params[2:].decode("latin-1"))
    return CURVES.get(ec_params)


_BY_WEIERSTRASS: Final[Mapping[str, Curve]] = MappingProxyType(
    {curve.weierstrass.name: curve for curve in CURVES.values() if curve.weierstrass}
)
_RAW: Final = tuple(curve for curve in CURVES.values() if curve.public_class)


@overload
def curve_of(key: AgreementKey) -> Curve: ...
@overload
def curve_of(key: PublicKey) -> Curve | None: ...
def curve_of(key: PublicKey) -> Curve | None:
    """Return the curve that a public key is on, if it is on one."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _BY_WEIERSTRASS.get(key.curve.name)
    return next((curve for curve in _RAW if isinstance(key, curve.public_class)), None)
