"""Data that callers and operations share: names of keys, parts of messages."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from hsm.algorithms.families import ContentEncryption, KeyAgreement
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import AgreementKey, PublicKey


class Storage(StrEnum):
    """Where a key is kept."""

    TOKEN = "token"  # noqa: S105  # not a password
    """As objects of the token."""
    WRAPPED = "wrapped"
    """In the registry, encrypted by the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A key as it is kept outside of the token: encrypted there under the key ``kek``.

    ``octets`` have its public half, too, if it is a pair. ``seal`` is a MAC of the token's over
    them and over what the registry says of the key.
    """

    kek: UUID
    octets: bytes = field(repr=False)
    seal: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRef:
    """Names a key for ``hsm``: its kid, what it is, and where it is kept.

    ``blob`` is the key itself, if its storage keeps it so, and ``row`` what the registry says of
    it, which the seal of the blob is to cover.
    """

    kid: UUID
    spec: KeySpec
    storage: Storage = Storage.TOKEN
    blob: Blob | None = field(default=None, repr=False)
    row: bytes = field(default=b"", repr=False)


OWN_KEY: Final = KeyRef(
    kid=UUID(bytes=b"jose-hsm:backup\0"), spec=KeySpec(kty="oct", alg="HS256", bits=256)
)
"""The key of the service's own under which backups are authenticated."""


TRANSFER_KEY: Final = UUID(bytes=b"jose-hsm:import\0")
"""The kid of the pair that a key-encryption key of another token is wrapped for."""


class Made(NamedTuple):
    """A new key: its name from now on, and the public half of a pair."""

    ref: KeyRef
    public: PublicKey | None = None


class Agreement(NamedTuple):
    """What the header of a message holds for ECDH-ES, or for AES-GCM over the CEK.

    That is RFC 7518 §4.6.1 and §4.7.1. ``epk`` is ``None``, and ``iv`` and ``tag`` are empty,
    before they are made, and where they are not used.
    """

    epk: AgreementKey | None = None
    apu: bytes = b""
    apv: bytes = b""
    iv: bytes = b""
    tag: bytes = b""


NO_AGREEMENT: Final = Agreement()


class Sealed(NamedTuple):
    """IV, ciphertext and tag, as long as the ``enc`` demands."""

    iv: bytes
    ciphertext: bytes
    tag: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A JWE that has come in, as far as it is not about its recipient (RFC 7516 §5.2)."""

    enc: str
    encrypted_key: bytes
    sealed: Sealed
    aad: bytes


class Encrypted(NamedTuple):
    """The parts of a JWE, and what its header holds of the CEK.

    ``encrypted_key`` is empty where there is none.
    """

    encrypted_key: bytes
    sealed: Sealed
    agreement: Agreement = NO_AGREEMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """One of several that a message is for: a key of ours, or one that a caller has brought."""

    key: KeyRef | PublicKey
    alg: str
    agreement: Agreement = NO_AGREEMENT


def authenticated(iv: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """Return what the MAC of AES-CBC with HMAC is over (RFC 7518 §5.2.2.1).

    It ends with AL, the length of the AAD in bits.
    """
    return b"".join((aad, iv, ciphertext, (8 * len(aad)).to_bytes(8)))


def other_info(row: KeyAgreement, enc: ContentEncryption, agreement: Agreement) -> bytes:
    """Return OtherInfo (RFC 7518 §4.6.2); SuppPrivInfo is empty."""
    algorithm_id = (row if row.wrapping else enc).name.encode("ascii")
    parts = (algorithm_id, agreement.apu, agreement.apv)
    supp_pub_info = (8 * agreed_bytes(row, enc)).to_bytes(4)
    return b"".join(len(part).to_bytes(4) + part for part in parts) + supp_pub_info


def agreed_bytes(row: KeyAgreement, enc: ContentEncryption) -> int:
    """Return how long the key is that both sides agree on."""
    return (row.wrapping or enc).key_bytes
