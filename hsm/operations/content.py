"""Content encryption in the token: AES-GCM (RFC 7518 §5.3) and AES-CBC with HMAC (§5.2)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from pkcs11 import GCMParams, Mechanism, PKCS11Error

from hsm.algorithms.families import ContentEncryption, MacAlgorithm
from hsm.cryptoki.canary import Canary
from hsm.cryptoki.handles import Key
from hsm.errors import DecryptionFailed, WrongResult
from hsm.operations import mac

Cek = tuple[Key, ...]
"""The objects of a content encryption key, in the order of the parts of its row."""

_BLOCK_BYTES: Final = 16


class Sealed(NamedTuple):
    """IV, ciphertext and tag, as long as the ``enc`` demands."""

    iv: bytes
    ciphertext: bytes
    tag: bytes


def encrypt(cek: Cek, row: ContentEncryption, plaintext: bytes, aad: bytes) -> Sealed:
    """Encrypt under a fresh random IV of the token (NIST SP 800-38A appendix C, 800-38D §8.2.2)."""
    iv = cek[0].lent.generate_random(8 * row.iv_bytes)
    return _SCHEMES[row.mechanism].seal(cek, row, iv, plaintext, aad)


def decrypt(cek: Cek, row: ContentEncryption, sealed: Sealed, aad: bytes, canary: Canary) -> bytes:
    """Return the plaintext; raise ``DecryptionFailed`` if the tag does not match."""
    try:
        return _SCHEMES[row.mechanism].open(cek, row, sealed, aad)
    except PKCS11Error as error:
        if canary.blames_input(error, cek[0].lent):
            raise DecryptionFailed from None
        raise


def require_opens(  # noqa: PLR0913, PLR0917  # what was sealed, and all that sealed it
    cek: Cek, row: ContentEncryption, sealed: Sealed, plaintext: bytes, aad: bytes, canary: Canary
) -> None:
    """Raise ``WrongResult`` unless ``sealed`` holds ``plaintext``, which may exist nowhere else."""
    try:
        opened = decrypt(cek, row, sealed, aad, canary)
    except DecryptionFailed:
        opened = None
    if opened != plaintext:
        raise WrongResult("ciphertext")


class _Scheme(ABC):
    """How a token seals and opens; ``open`` raises ``PKCS11Error`` or ``DecryptionFailed``."""

    @abstractmethod
    def seal(
        self, cek: Cek, row: ContentEncryption, iv: bytes, plaintext: bytes, aad: bytes
    ) -> Sealed: ...

    @abstractmethod
    def open(self, cek: Cek, row: ContentEncryption, sealed: Sealed, aad: bytes) -> bytes: ...


class _Gcm(_Scheme):
    """The token does all; its ciphertext ends with the tag."""

    def seal(
        self, cek: Cek, row: ContentEncryption, iv: bytes, plaintext: bytes, aad: bytes
    ) -> Sealed:
        (key,) = cek
        output = key.encrypt(plaintext, **self._parameters(row, iv, aad))
        return Sealed(iv, output[: -row.tag_bytes], output[-row.tag_bytes :])

    def open(self, cek: Cek, row: ContentEncryption, sealed: Sealed, aad: bytes) -> bytes:
        (key,) = cek
        parameters = self._parameters(row, sealed.iv, aad)
        return key.decrypt(sealed.ciphertext + sealed.tag, **parameters)

    @staticmethod
    def _parameters(row: ContentEncryption, iv: bytes, aad: bytes) -> dict[str, object]:
        return {
            "mechanism": row.mechanism,
            "mechanism_param": GCMParams(iv, aad, 8 * row.tag_bytes),
        }


class _CbcHmac(_Scheme):
    """The token encrypts, then authenticates; what is not authentic is never decrypted."""

    def seal(
        self, cek: Cek, row: ContentEncryption, iv: bytes, plaintext: bytes, aad: bytes
    ) -> Sealed:
        mac_key, enc_key = cek
        ciphertext = enc_key.encrypt(plaintext, mechanism=row.mechanism, mechanism_param=iv)
        tag = mac.compute(mac_key, _mac(row), authenticated(iv, ciphertext, aad))
        return Sealed(iv, ciphertext, tag)

    def open(self, cek: Cek, row: ContentEncryption, sealed: Sealed, aad: bytes) -> bytes:
        mac_key, enc_key = cek
        iv, ciphertext, tag = sealed
        if not mac.verify(mac_key, _mac(row), authenticated(iv, ciphertext, aad), tag):
            raise DecryptionFailed
        if not ciphertext or len(ciphertext) % _BLOCK_BYTES:  # tokens differ in what they say
            raise DecryptionFailed
        return enc_key.decrypt(ciphertext, mechanism=row.mechanism, mechanism_param=iv)


def _mac(row: ContentEncryption) -> MacAlgorithm:
    assert row.mac is not None  # noqa: S101  # every row of CBC has one
    return row.mac


def authenticated(iv: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """Return what the MAC is over: it ends with AL, the length of the AAD in bits (§5.2.2.1)."""
    return b"".join((aad, iv, ciphertext, (8 * len(aad)).to_bytes(8)))


_SCHEMES: Final[Mapping[Mechanism, _Scheme]] = MappingProxyType(
    {Mechanism.AES_GCM: _Gcm(), Mechanism.AES_CBC_PAD: _CbcHmac()}
)
