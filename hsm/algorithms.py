"""How a token performs JOSE algorithms: four frozen tables, and what a key of each is.

What differs between algorithms is a row here and nowhere else. The tables say what JOSE and
PKCS#11 define; what *this* token can do is proven at boot by ``token``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import MGF, KeyType, Mechanism, MechanismFlag

Row = TypeVar("Row", bound="Algorithm")
OaepParam = tuple[Mechanism, MGF, bytes | None]
PssParam = tuple[Mechanism, MGF, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A curve (RFC 7518 §6.2.1.1, RFC 8037 §2); ``ec_params`` is the DER of its OID."""

    crv: str
    ec_params: bytes
    coordinate_bytes: int
    weierstrass: ec.EllipticCurve | None = None


P256: Final = Curve(
    crv="P-256",
    ec_params=bytes.fromhex("06082a8648ce3d030107"),
    coordinate_bytes=32,
    weierstrass=ec.SECP256R1(),
)
P384: Final = Curve(
    crv="P-384",
    ec_params=bytes.fromhex("06052b81040022"),
    coordinate_bytes=48,
    weierstrass=ec.SECP384R1(),
)
P521: Final = Curve(
    crv="P-521",
    ec_params=bytes.fromhex("06052b81040023"),
    coordinate_bytes=66,
    weierstrass=ec.SECP521R1(),
)
ED25519: Final = Curve(crv="Ed25519", ec_params=bytes.fromhex("06032b6570"), coordinate_bytes=32)

CURVES: Final[Mapping[bytes, Curve]] = MappingProxyType(
    {curve.ec_params: curve for curve in (P256, P384, P521, ED25519)}
)
"""Every curve, by its CKA_EC_PARAMS."""

WEIERSTRASS_CURVES: Final[Mapping[str, ec.EllipticCurve]] = MappingProxyType(
    {curve.crv: curve.weierstrass for curve in (P256, P384, P521) if curve.weierstrass}
)
"""The curves of key type EC, by their JWK names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyKind:
    """Keys that PKCS#11 makes alike; ``ktys`` are their JWK names, the preferred one first."""

    name: str
    ktys: tuple[str, ...]
    key_type: KeyType
    generation: Mechanism
    is_pair: bool = True


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
    name="Ed25519",
    ktys=("OKP",),
    key_type=KeyType.EC_EDWARDS,
    generation=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
)
ML_DSA: Final = KeyKind(
    name="ML-DSA",
    ktys=("AKP", "OKP"),
    key_type=KeyType.ML_DSA,
    generation=Mechanism.ML_DSA_KEY_PAIR_GEN,
)

SIGN_VERIFY: Final = MechanismFlag.SIGN | MechanismFlag.VERIFY
ENCRYPT_DECRYPT: Final = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
WRAP_UNWRAP: Final = MechanismFlag.WRAP | MechanismFlag.UNWRAP


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """What the rows of all tables have in common.

    ``usages`` are the CKA_* usage attributes that the algorithm needs, of either half.
    ``fips`` says whether FIPS mode offers it.
    """

    name: str
    kind: KeyKind
    mechanism: Mechanism
    usages: MechanismFlag
    curve: Curve | None = None
    fips: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureAlgorithm(Algorithm):
    """A JWS ``alg`` with a key pair (RFC 7518 §3.1).

    ``hash`` is that of the algorithm, ``None`` where it is part of the scheme; with
    ``is_prehashed`` it is taken before the token is called. ``param`` is (hash, MGF, salt length
    in bytes). ``signature_bytes`` is ``None`` where the modulus decides.
    """

    usages: MechanismFlag = SIGN_VERIFY
    param: PssParam | None = None
    hash: hashes.HashAlgorithm | None = None
    is_prehashed: bool = False
    parameter_set: int | None = None
    signature_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MacAlgorithm(Algorithm):
    """A JWS ``alg`` with a shared key (RFC 7518 §3.2); the key is as long as the hash or longer.

    The token only ever computes: MACs are compared outside, in constant time.
    """

    kind: KeyKind = HMAC
    usages: MechanismFlag = MechanismFlag.SIGN
    mac_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentEncryption(Algorithm):
    """A JWE ``enc`` (RFC 7518 §5.1)."""

    kind: KeyKind = AES
    mechanism: Mechanism = Mechanism.AES_GCM
    usages: MechanismFlag = ENCRYPT_DECRYPT
    key_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyManagement(Algorithm):
    """A JWE ``alg`` that transports a CEK (RFC 7518 §4.3). ``hash`` serves label and MGF1 alike."""

    kind: KeyKind = RSA
    mechanism: Mechanism = Mechanism.RSA_PKCS_OAEP
    usages: MechanismFlag = WRAP_UNWRAP
    param: OaepParam
    hash: hashes.HashAlgorithm


def _rsa(
    name: str,
    mechanism: Mechanism,
    hash_algorithm: hashes.HashAlgorithm,
    param: PssParam | None = None,
) -> SignatureAlgorithm:
    return SignatureAlgorithm(
        name=name, kind=RSA, mechanism=mechanism, hash=hash_algorithm, param=param
    )


def _ecdsa(name: str, curve: Curve, hash_algorithm: hashes.HashAlgorithm) -> SignatureAlgorithm:
    return SignatureAlgorithm(
        name=name,
        kind=EC,
        mechanism=Mechanism.ECDSA,
        curve=curve,
        hash=hash_algorithm,
        is_prehashed=True,
        signature_bytes=2 * curve.coordinate_bytes,
    )


def _table(*rows: Row) -> Mapping[str, Row]:
    return MappingProxyType({row.name: row for row in rows})


_PSS_256: Final = (Mechanism.SHA256, MGF.SHA256, 32)
_PSS_384: Final = (Mechanism.SHA384, MGF.SHA384, 48)
_PSS_512: Final = (Mechanism.SHA512, MGF.SHA512, 64)

SIGNATURES: Final = _table(
    _rsa("RS256", Mechanism.SHA256_RSA_PKCS, hashes.SHA256()),
    _rsa("RS384", Mechanism.SHA384_RSA_PKCS, hashes.SHA384()),
    _rsa("RS512", Mechanism.SHA512_RSA_PKCS, hashes.SHA512()),
    _rsa("PS256", Mechanism.SHA256_RSA_PKCS_PSS, hashes.SHA256(), _PSS_256),
    _rsa("PS384", Mechanism.SHA384_RSA_PKCS_PSS, hashes.SHA384(), _PSS_384),
    _rsa("PS512", Mechanism.SHA512_RSA_PKCS_PSS, hashes.SHA512(), _PSS_512),
    _ecdsa("ES256", P256, hashes.SHA256()),
    _ecdsa("ES384", P384, hashes.SHA384()),
    _ecdsa("ES512", P521, hashes.SHA512()),
    SignatureAlgorithm(
        name="EdDSA",
        kind=EDWARDS,
        mechanism=Mechanism.EDDSA,
        curve=ED25519,
        signature_bytes=64,
        fips=False,
    ),
    SignatureAlgorithm(
        name="MLDSA44",
        kind=ML_DSA,
        mechanism=Mechanism.ML_DSA,
        parameter_set=1,  # CKP_ML_DSA_44
        signature_bytes=2420,  # FIPS 204, table 2
        fips=False,
    ),
)

MACS: Final = _table(
    MacAlgorithm(name="HS256", mechanism=Mechanism.SHA256_HMAC, mac_bytes=32),
    MacAlgorithm(name="HS384", mechanism=Mechanism.SHA384_HMAC, mac_bytes=48),
    MacAlgorithm(name="HS512", mechanism=Mechanism.SHA512_HMAC, mac_bytes=64),
)

CONTENT_ENCRYPTIONS: Final = _table(
    ContentEncryption(name="A128GCM", key_bytes=16),
    ContentEncryption(name="A192GCM", key_bytes=24),
    ContentEncryption(name="A256GCM", key_bytes=32),
)

KEY_MANAGEMENTS: Final = _table(
    KeyManagement(name="RSA-OAEP", param=(Mechanism.SHA_1, MGF.SHA1, None), hash=hashes.SHA1()),  # noqa: S303  # RFC 7518 §4.3
    KeyManagement(
        name="RSA-OAEP-256", param=(Mechanism.SHA256, MGF.SHA256, None), hash=hashes.SHA256()
    ),
)

CEK_WRAPPING: Final = Mechanism.AES_KEY_WRAP
"""How a CEK crosses from one object to another inside the token (RFC 3394)."""

DIRECT: Final = "dir"
"""The JWE ``alg`` without key management: the named key is the CEK (RFC 7518 §4.5)."""

ALGORITHMS: Final[Mapping[str, Algorithm]] = MappingProxyType(
    {**SIGNATURES, **MACS, **CONTENT_ENCRYPTIONS, **KEY_MANAGEMENTS}
)
"""Every algorithm that a key can be bound to."""


@cache
def _algorithms(kty: str, alg: str | None, crv: str | None) -> tuple[Algorithm, ...]:
    return tuple(
        row
        for row in ALGORITHMS.values()
        if kty in row.kind.ktys and alg in (None, row.name) and crv == (row.curve and row.curve.crv)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpec:
    """What a key is, as its JWK says. ``bits`` is the length of an RSA modulus or an oct key."""

    kty: str
    alg: str | None = None
    crv: str | None = None
    bits: int | None = None

    @property
    def algorithms(self) -> tuple[Algorithm, ...]:
        """Every algorithm that the key may perform: its ``alg``, or all of its kty and curve."""
        return _algorithms(self.kty, self.alg, self.crv)

    @property
    def kind(self) -> KeyKind:
        """The kind of the key; all algorithms of one key share it."""
        return self.algorithms[0].kind

    @property
    def curve(self) -> Curve | None:
        """The curve of the key, if it is on one."""
        return self.algorithms[0].curve

    def permits(self, name: str) -> bool:
        """Tell whether the key may perform the algorithm ``name``."""
        return any(row.name == name for row in self.algorithms)
