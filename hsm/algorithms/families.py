"""What an algorithm is: a frozen row of one of four families.

What differs between algorithms is a field of such a row and nothing else. The rows themselves
are in ``hsm.algorithms.tables``, the verbs of each family in ``hsm.operations``.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import ClassVar, Final

from cryptography.hazmat.primitives import hashes
from pkcs11 import MGF, Mechanism, MechanismFlag

from hsm.algorithms.kinds import AES, EC, HMAC, P256, P384, P521, RSA, X25519, Curve, KeyKind

OaepParam = tuple[Mechanism, MGF, bytes | None]
PssParam = tuple[Mechanism, MGF, int]

CEK_WRAPPING: Final = Mechanism.AES_KEY_WRAP
"""How a CEK crosses from one object to another inside the token (RFC 3394)."""

SIGN_VERIFY: Final = MechanismFlag.SIGN | MechanismFlag.VERIFY
ENCRYPT_DECRYPT: Final = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
WRAP_UNWRAP: Final = MechanismFlag.WRAP | MechanismFlag.UNWRAP


class Family(Enum):
    """The families: what differs between them is a table by this."""

    SIGNATURE = auto()
    MAC = auto()
    CONTENT = auto()
    KEY_MANAGEMENT = auto()


class CekPathName(Enum):
    """The ways of a CEK between message and token; see ``hsm.operations.cek``."""

    TOKEN = auto()
    SPLITTING = auto()
    PROCESS = auto()
    AGREEMENT = auto()
    WRAPPED_AGREEMENT = auto()
    SEALING = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """What the rows of all tables have in common.

    ``kind`` is that of its keys, unless they are on ``curves``: each has its own. ``usages`` are
    the CKA_* usage attributes that the algorithm needs, of either half. ``fips`` says whether FIPS
    mode offers it. With ``is_bound_only`` no key without ``alg`` performs it that could be
    for another family, and with ``is_opt_in`` nobody does unless the settings say so. ``jwk_alg``
    is what a JWK calls it, where that is not its ``name``; ``name_of`` is another name of the same
    algorithm, under which its signatures verify, too. ``parameter_set`` is CKA_PARAMETER_SET,
    where keys have one, and ``key_bytes`` the length of secret keys, where there is only one.
    """

    family: ClassVar[Family]

    name: str
    kind: KeyKind
    mechanism: Mechanism
    usages: MechanismFlag
    curves: tuple[Curve, ...] = ()
    fips: bool = True
    is_bound_only: bool = False
    is_opt_in: bool = False
    jwk_alg: str | None = None
    name_of: str | None = None
    parameter_set: int | None = None
    key_bytes: int = 0

    @property
    def keys(self) -> tuple[tuple[KeyKind, Curve | None], ...]:
        """Every kind of its keys, each with its curve if it is on one."""
        return tuple((curve.kind, curve) for curve in self.curves) or ((self.kind, None),)

    @property
    def first_name(self) -> str:
        """The one that all names of the algorithm have in common."""
        return self.name_of or self.name

    @property
    def parts(self) -> tuple["Algorithm", ...]:
        """What each secret object of a key performs; nearly always one does all."""
        return (self,)

    @property
    def ways(self) -> tuple["Algorithm", ...]:
        """The same algorithm with each mechanism that may perform it, the best first."""
        return (self,)

    def shares(self, value: bytes | bytearray) -> tuple[bytearray, ...]:
        """Return what each of ``parts`` gets of the secret key ``value``, to be wiped."""
        return (bytearray(value),)

    @property
    def smallest_bytes(self) -> int:
        """The length of the shortest secret key that performs it; 0 if its keys are pairs."""
        return self.key_bytes

    def takes_bits(self, bits: int | None) -> bool:
        """Tell whether a key of that length performs it; of pairs every length does."""
        return not self.key_bytes or bits == 8 * self.key_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureAlgorithm(Algorithm):
    """A JWS ``alg`` with a key pair (RFC 7518 §3.1).

    ``hash`` is that of the algorithm, ``None`` where it is part of the scheme; with
    ``is_prehashed`` it is taken before the token is called. ``param`` is (hash, MGF, salt length
    in bytes). ``signature_bytes`` is ``None`` where the modulus or the curve decides.
    ``digest_mechanism`` signs a digest that somebody else has taken; ``None`` where none does.
    With ``has_curve_params`` the mechanism gets the ``sign_param`` of the curve of the key.
    """

    family: ClassVar[Family] = Family.SIGNATURE

    usages: MechanismFlag = SIGN_VERIFY
    param: PssParam | None = None
    hash: hashes.HashAlgorithm | None = None
    is_prehashed: bool = False
    digest_mechanism: Mechanism | None = None
    signature_bytes: int | None = None
    has_curve_params: bool = False

    @property
    def is_random(self) -> bool:
        """Whether two signatures of the same data differ: those of PSS and ECDSA do."""
        return self.param is not None or self.kind is EC

    @property
    def ways(self) -> tuple[Algorithm, ...]:
        """See ``Algorithm``. Tokens that hash nothing sign a digest that is taken here.

        And some want parameters for Ed448 that others do without.
        """
        if any(curve.sign_param for curve in self.curves):
            return (self, replace(self, has_curve_params=True))
        if self.is_prehashed or self.digest_mechanism is None:
            return (self,)
        return (self, replace(self, mechanism=self.digest_mechanism, is_prehashed=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class MacAlgorithm(Algorithm):
    """A JWS ``alg`` with a shared key (RFC 7518 §3.2); the key is as long as the hash or longer.

    The token only ever computes: MACs are compared outside, in constant time. ``mac_bytes`` is the
    length of the hash, ``tag_bytes`` how much of the MAC is used where that is not all.
    """

    family: ClassVar[Family] = Family.MAC

    kind: KeyKind = HMAC
    usages: MechanismFlag = MechanismFlag.SIGN
    mac_bytes: int
    tag_bytes: int | None = None

    @property
    def hash_name(self) -> str:
        """The hash, as ``hashlib`` names it."""
        return f"sha{8 * self.mac_bytes}"

    @property
    def smallest_bytes(self) -> int:
        """See ``Algorithm``."""
        return self.mac_bytes

    def takes_bits(self, bits: int | None) -> bool:
        """See ``Algorithm``."""
        return (bits or 0) >= 8 * self.smallest_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentEncryption(Algorithm):
    """A JWE ``enc`` (RFC 7518 §5.1).

    A CEK with ``mac`` is two objects: the first half of its bytes authenticates, the second
    encrypts (§5.2.2.1). ``is_counted`` says that IVs are random and must not meet. ``most_bytes``
    is how long a plaintext may be, where the token takes no longer ones.
    """

    family: ClassVar[Family] = Family.CONTENT

    kind: KeyKind = AES
    mechanism: Mechanism = Mechanism.AES_GCM
    usages: MechanismFlag = ENCRYPT_DECRYPT
    iv_bytes: int = 12
    tag_bytes: int = 16
    mac: MacAlgorithm | None = None
    is_counted: bool = True
    most_bytes: int | None = None

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
    ``is_counted`` says that IVs are random and must not meet. ``cek_paths`` are the ways that its
    CEKs can take, the best first.
    """

    family: ClassVar[Family] = Family.KEY_MANAGEMENT

    cek_paths: tuple[CekPathName, ...] = (CekPathName.TOKEN, CekPathName.SPLITTING)
    usages: MechanismFlag = WRAP_UNWRAP
    param: OaepParam | None = None
    transports: bool = True
    tells_size: bool = True
    is_counted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaOaep(KeyManagement):
    """RSAES-OAEP (RFC 7518 §4.3). ``hash`` serves label and MGF1 alike."""

    kind: KeyKind = RSA
    mechanism: Mechanism = Mechanism.RSA_PKCS_OAEP
    hash: hashes.HashAlgorithm
    cek_paths: tuple[CekPathName, ...] = (
        CekPathName.TOKEN,
        CekPathName.SPLITTING,
        CekPathName.PROCESS,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyWrapping(KeyManagement):
    """AES Key Wrap under a shared key (RFC 7518 §4.4)."""

    kind: KeyKind = AES
    mechanism: Mechanism = CEK_WRAPPING
    is_bound_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class GcmKeyWrapping(KeyManagement):
    """AES-GCM under a shared key (RFC 7518 §4.7): ``content`` without AAD, over the CEK."""

    kind: KeyKind = AES
    mechanism: Mechanism = Mechanism.AES_GCM
    usages: MechanismFlag = ENCRYPT_DECRYPT
    is_bound_only: bool = True
    is_counted: bool = True
    cek_paths: tuple[CekPathName, ...] = (CekPathName.SEALING,)
    content: ContentEncryption


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAgreement(KeyManagement):
    """ECDH-ES (RFC 7518 §4.6): what is agreed on is the CEK, or wraps it with ``wrapping``."""

    kind: KeyKind = EC
    mechanism: Mechanism = Mechanism.ECDH1_DERIVE
    usages: MechanismFlag = MechanismFlag.DERIVE
    curves: tuple[Curve, ...] = (P256, P384, P521, X25519)
    is_bound_only: bool = True
    cek_paths: tuple[CekPathName, ...] = (CekPathName.WRAPPED_AGREEMENT,)
    wrapping: KeyWrapping | None = None
