"""How a token performs JOSE algorithms: four frozen tables, and what a key of each is.

What differs between algorithms is a row here and nowhere else. The tables say what JOSE and
PKCS#11 define; what *this* token can do is proven at boot by ``token``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import MGF, KeyType, Mechanism, MechanismFlag

Row = TypeVar("Row", bound="Algorithm")
OaepParam = tuple[Mechanism, MGF, bytes | None]
PssParam = tuple[Mechanism, MGF, int]


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
MONTGOMERY: Final = KeyKind(
    name="X25519",
    ktys=("OKP",),
    key_type=KeyType.EC_EDWARDS,  # so SoftHSM has it; PKCS#11 v3.0 also has CKK_EC_MONTGOMERY
    generation=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
)
ML_DSA: Final = KeyKind(
    name="ML-DSA",
    ktys=("AKP", "OKP"),
    key_type=KeyType.ML_DSA,
    generation=Mechanism.ML_DSA_KEY_PAIR_GEN,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A curve (RFC 7518 §6.2.1.1, RFC 8037 §2), and what keys on it are.

    ``ec_params`` is the DER of its OID. ``fips`` says whether FIPS mode offers it.
    """

    crv: str
    kind: KeyKind
    ec_params: bytes
    coordinate_bytes: int
    weierstrass: ec.EllipticCurve | None = None
    fips: bool = True


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
ED25519: Final = Curve(
    crv="Ed25519",
    kind=EDWARDS,
    ec_params=bytes.fromhex("06032b6570"),
    coordinate_bytes=32,
    fips=False,
)
X25519: Final = Curve(
    crv="X25519",
    kind=MONTGOMERY,
    ec_params=bytes.fromhex("06032b656e"),
    coordinate_bytes=32,
    fips=False,
)

CURVES: Final[Mapping[bytes, Curve]] = MappingProxyType(
    {curve.ec_params: curve for curve in (P256, P384, P521, ED25519, X25519)}
)
"""Every curve, by its CKA_EC_PARAMS."""

_BY_CRV: Final = MappingProxyType({curve.crv: curve for curve in CURVES.values()})

WEIERSTRASS_CURVES: Final[Mapping[str, ec.EllipticCurve]] = MappingProxyType(
    {curve.crv: curve.weierstrass for curve in (P256, P384, P521) if curve.weierstrass}
)
"""The curves of key type EC, by their JWK names."""


CEK_WRAPPING: Final = Mechanism.AES_KEY_WRAP
"""How a CEK crosses from one object to another inside the token (RFC 3394)."""

SIGN_VERIFY: Final = MechanismFlag.SIGN | MechanismFlag.VERIFY
ENCRYPT_DECRYPT: Final = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
WRAP_UNWRAP: Final = MechanismFlag.WRAP | MechanismFlag.UNWRAP


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """What the rows of all tables have in common.

    ``kind`` is that of its keys, unless they are on ``curves``: each has its own. ``usages`` are
    the CKA_* usage attributes that the algorithm needs, of either half. ``fips`` says whether FIPS
    mode offers it. With ``is_bound_only`` no key without ``alg`` performs it, and with
    ``is_opt_in`` nobody does unless the settings say so.
    """

    name: str
    kind: KeyKind
    mechanism: Mechanism
    usages: MechanismFlag
    curves: tuple[Curve, ...] = ()
    fips: bool = True
    is_bound_only: bool = False
    is_opt_in: bool = False

    @property
    def keys(self) -> tuple[tuple[KeyKind, Curve | None], ...]:
        """Every kind of its keys, each with its curve if it is on one."""
        return tuple((curve.kind, curve) for curve in self.curves) or ((self.kind, None),)

    @property
    def parts(self) -> tuple["Algorithm", ...]:
        """What each secret object of a key performs; nearly always one does all."""
        return (self,)

    def shares(self, value: bytes | bytearray) -> tuple[bytearray, ...]:
        """Return what each of ``parts`` gets of the secret key ``value``, to be wiped."""
        return (bytearray(value),)


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

    The token only ever computes: MACs are compared outside, in constant time. ``mac_bytes`` is the
    length of the hash, ``tag_bytes`` how much of the MAC is used where that is not all.
    """

    kind: KeyKind = HMAC
    usages: MechanismFlag = MechanismFlag.SIGN
    mac_bytes: int
    tag_bytes: int | None = None

    @property
    def hash_name(self) -> str:
        """The hash, as ``hashlib`` names it."""
        return f"sha{8 * self.mac_bytes}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentEncryption(Algorithm):
    """A JWE ``enc`` (RFC 7518 §5.1).

    A CEK with ``mac`` is two objects: the first half of its bytes authenticates, the second
    encrypts (§5.2.2.1). ``is_counted`` says that IVs are random and must not meet.
    """

    kind: KeyKind = AES
    mechanism: Mechanism = Mechanism.AES_GCM
    usages: MechanismFlag = ENCRYPT_DECRYPT
    key_bytes: int
    iv_bytes: int = 12
    tag_bytes: int = 16
    mac: MacAlgorithm | None = None
    is_counted: bool = True

    @property
    def parts(self) -> tuple[Algorithm, ...]:
        """See ``Algorithm``; the MAC comes first, as its half of the key does."""
        return (self,) if self.mac is None else (self.mac, self)

    def shares(self, value: bytes | bytearray) -> tuple[bytearray, ...]:
        """See ``Algorithm``.

        HMAC pads a short key with zeros (RFC 2104 §2); tokens that refuse short keys get it so.
        """
        if self.mac is None:
            return (bytearray(value),)
        middle = self.key_bytes // 2
        return bytearray(value[:middle].ljust(self.mac.mac_bytes, b"\0")), bytearray(value[middle:])


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyManagement(Algorithm):
    """A JWE ``alg`` by which the recipient gets the CEK (RFC 7518 §4.1).

    It ``transports`` a CEK unless both sides agree on it. With ``tells_size`` a CEK that comes out
    is one that somebody has put in, and whoever asks may know that it is of the wrong size.
    """

    usages: MechanismFlag = WRAP_UNWRAP
    param: OaepParam | None = None
    transports: bool = True
    tells_size: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaOaep(KeyManagement):
    """RSAES-OAEP (RFC 7518 §4.3). ``hash`` serves label and MGF1 alike."""

    kind: KeyKind = RSA
    mechanism: Mechanism = Mechanism.RSA_PKCS_OAEP
    hash: hashes.HashAlgorithm


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyWrapping(KeyManagement):
    """AES Key Wrap under a shared key (RFC 7518 §4.4)."""

    kind: KeyKind = AES
    mechanism: Mechanism = CEK_WRAPPING
    is_bound_only: bool = True
    key_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAgreement(KeyManagement):
    """ECDH-ES (RFC 7518 §4.6): what is agreed on is the CEK, or wraps it with ``wrapping``."""

    kind: KeyKind = EC
    mechanism: Mechanism = Mechanism.ECDH1_DERIVE
    usages: MechanismFlag = MechanismFlag.DERIVE
    curves: tuple[Curve, ...] = (P256, P384, P521, X25519)
    is_bound_only: bool = True
    wrapping: KeyWrapping | None = None


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
        curves=(curve,),
        hash=hash_algorithm,
        is_prehashed=True,
        signature_bytes=2 * curve.coordinate_bytes,
    )


def _cbc_hmac(name: str, mechanism: Mechanism, hash_bytes: int) -> ContentEncryption:
    """Return a row of RFC 7518 §5.2: key as long as the hash, halves and tag half as long."""
    tag_bytes = hash_bytes // 2
    return ContentEncryption(
        name=name,
        mechanism=Mechanism.AES_CBC_PAD,
        key_bytes=hash_bytes,
        iv_bytes=16,
        tag_bytes=tag_bytes,
        mac=MacAlgorithm(name=name, mechanism=mechanism, mac_bytes=hash_bytes, tag_bytes=tag_bytes),
        is_counted=False,
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
        curves=(ED25519,),
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
    _cbc_hmac("A128CBC-HS256", Mechanism.SHA256_HMAC, 32),
    _cbc_hmac("A192CBC-HS384", Mechanism.SHA384_HMAC, 48),
    _cbc_hmac("A256CBC-HS512", Mechanism.SHA512_HMAC, 64),
)

CONTENT_FAMILIES: Final = tuple(
    tuple(row for row in CONTENT_ENCRYPTIONS.values() if row.mechanism is mechanism)
    for mechanism in (Mechanism.AES_GCM, Mechanism.AES_CBC_PAD)
)
"""Those that differ in nothing but sizes: what carries a CEK of one carries those of all."""

KEY_WRAPPINGS: Final = _table(
    KeyWrapping(name="A128KW", key_bytes=16),
    KeyWrapping(name="A192KW", key_bytes=24),
    KeyWrapping(name="A256KW", key_bytes=32),
)

KEY_AGREEMENTS: Final = _table(
    KeyAgreement(name="ECDH-ES", transports=False),
    *(KeyAgreement(name=f"ECDH-ES+{name}", wrapping=row) for name, row in KEY_WRAPPINGS.items()),
)

_RSA_ENCRYPTIONS: Final = _table(
    RsaOaep(name="RSA-OAEP", param=(Mechanism.SHA_1, MGF.SHA1, None), hash=hashes.SHA1()),  # noqa: S303  # RFC 7518 §4.3
    RsaOaep(name="RSA-OAEP-256", param=(Mechanism.SHA256, MGF.SHA256, None), hash=hashes.SHA256()),
    KeyManagement(
        name="RSA1_5",
        kind=RSA,
        mechanism=Mechanism.RSA_PKCS,
        fips=False,
        is_bound_only=True,
        is_opt_in=True,
        tells_size=False,  # a random one comes out of one padding in 2**16 (Bleichenbacher, 1998)
    ),
)

KEY_MANAGEMENTS: Final[Mapping[str, KeyManagement]] = MappingProxyType(
    {**_RSA_ENCRYPTIONS, **KEY_WRAPPINGS, **KEY_AGREEMENTS}
)

DIRECT: Final = "dir"
"""The JWE ``alg`` without key management: the named key is the CEK (RFC 7518 §4.5)."""

ALGORITHMS: Final[Mapping[str, Algorithm]] = MappingProxyType(
    {**SIGNATURES, **MACS, **CONTENT_ENCRYPTIONS, **KEY_MANAGEMENTS}
)
"""Every algorithm that a key can be bound to."""


ByCrv = Mapping[str | None, tuple[Algorithm, ...]]


def _by_crv(kty: str, alg: str | None) -> ByCrv:
    found: dict[str | None, tuple[Algorithm, ...]] = {}
    for row in ALGORITHMS.values():
        for kind, curve in row.keys:
            if kty in kind.ktys and (alg == row.name or (alg is None and not row.is_bound_only)):
                crv = curve.crv if curve else None
                found[crv] = (*found.get(crv, ()), row)
    return MappingProxyType(found)


_PERFORMED: Final[Mapping[tuple[str, str | None], ByCrv]] = MappingProxyType(
    {
        (kty, alg): _by_crv(kty, alg)
        for kind in (AES, HMAC, RSA, EC, EDWARDS, MONTGOMERY, ML_DSA)
        for kty in kind.ktys
        for alg in (None, *ALGORITHMS)
    }
)


def algorithms_by_crv(kty: str, alg: str | None) -> ByCrv:
    """Return what keys of ``kty`` perform, by their ``crv``: ``alg``, or all that need no binding.

    There is nothing in it for names that do not go together.
    """
    return _PERFORMED.get((kty, alg), MappingProxyType({}))


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
        return algorithms_by_crv(self.kty, self.alg).get(self.crv, ())

    @property
    def kind(self) -> KeyKind:
        """The kind of the key; all algorithms of one key share it."""
        return self.curve.kind if self.curve else self.algorithms[0].kind

    @property
    def curve(self) -> Curve | None:
        """The curve of the key, if it is on one."""
        return _BY_CRV[self.crv] if self.crv else None

    def permits(self, name: str) -> bool:
        """Tell whether the key may perform the algorithm ``name``."""
        return any(row.name == name for row in self.algorithms)
