"""Content encryption in the token: AES-GCM (RFC 7518 §5.3) and AES-CBC with HMAC (§5.2)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from pkcs11 import GCMParams, Mechanism, PKCS11Error

from hsm.algorithms.families import ContentEncryption, MacAlgorithm
from hsm.cryptoki.handles import Key
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.repeated import GcmParameters, Repeatedly
from hsm.cryptoki.session import Session
from hsm.errors import CryptoFailure, DecryptionFailed, WrongResult
from hsm.messages import Sealed, authenticated
from hsm.operations import mac

_IVS_AT_ONCE: Final = 32
_BLOCK_BYTES: Final = 16
_LOOKS: Final = 2
"""How often a healthy token has to find the tag bad: one in trouble for a moment says so once."""


def seal(cek: Keys, row: ContentEncryption, plaintext: bytes, aad: bytes) -> Sealed:
    """Encrypt under a fresh random IV of the token (NIST SP 800-38A appendix C, 800-38D §8.2.2).

    Raises ``CryptoFailure`` for more than the token takes.
    """
    _require_fits(row, len(plaintext))
    iv = cek.session.generate_random(8 * row.iv_bytes)
    return _SCHEMES[row.mechanism].seal(cek, row, iv, plaintext, aad)


def unseal(
    cek: Keys, row: ContentEncryption, sealed: Sealed, aad: bytes, looks: int = _LOOKS
) -> bytes:
    """Return the plaintext; raise ``DecryptionFailed`` if the tag does not match.

    Raises ``CryptoFailure`` for more than the token takes. One of the ``looks`` is enough for whom
    gets the CEK anew for another.
    """
    padding_bytes = _BLOCK_BYTES if row.mac else 0
    _require_fits(row, len(sealed.ciphertext) - padding_bytes)
    for _ in range(looks):
        try:
            return _SCHEMES[row.mechanism].open(cek, row, sealed, aad)
        except PKCS11Error as error:
            if not cek.canary.blames_input(error, cek.session):
                raise
    raise DecryptionFailed


def repeated_seal(cek: Keys, row: ContentEncryption, *, is_checked: bool) -> Repeatedly | None:
    """Return what seals many plaintexts, and opens them again if it ``is_checked``."""
    if row.mechanism is not Mechanism.AES_GCM:
        return None
    ((key,), gcm) = cek.secrets, GcmParameters(ulTagBits=8 * row.tag_bytes)
    encrypt, decrypt = (key.repeated(name, row.mechanism, gcm) for name in ("Encrypt", "Decrypt"))
    if encrypt is None or decrypt is None:
        return None
    ivs = _ivs(cek.session, row.iv_bytes)

    def seal_one(plaintext: bytes, aad: bytes) -> Sealed | None:
        _require_fits(row, len(plaintext))
        iv, most_bytes = next(ivs), len(plaintext) + row.tag_bytes
        gcm.take(iv, aad)
        output = encrypt(plaintext, most_bytes=most_bytes)
        if output is None:
            return None
        sealed = Sealed(iv, output[: -row.tag_bytes], output[-row.tag_bytes :])
        if is_checked and decrypt(output, most_bytes=most_bytes) != plaintext:
            require_opens(cek, row, sealed, aad, plaintext)
        return sealed

    return seal_one


def repeated_unseal(cek: Keys, row: ContentEncryption) -> Repeatedly | None:
    """Return what does ``unseal`` with many; of one that does not open it says nothing."""
    if row.mechanism is not Mechanism.AES_GCM:
        return None
    ((key,), gcm) = cek.secrets, GcmParameters(ulTagBits=8 * row.tag_bytes)
    decrypt = key.repeated("Decrypt", row.mechanism, gcm)
    if decrypt is None:
        return None

    def open_one(sealed: Sealed, aad: bytes) -> bytes | None:
        iv, ciphertext, tag = sealed
        _require_fits(row, len(ciphertext))
        gcm.take(iv, aad)
        return decrypt(ciphertext + tag, most_bytes=len(ciphertext) + len(tag))

    return open_one


def _ivs(session: Session, size_bytes: int) -> Iterator[bytes]:
    """Give random IVs of the token, which takes as long for some as for one."""
    while True:
        octets = session.generate_random(8 * size_bytes * _IVS_AT_ONCE)
        yield from (octets[at : at + size_bytes] for at in range(0, len(octets), size_bytes))


def _require_fits(row: ContentEncryption, plaintext_bytes: int) -> None:
    if row.most_bytes is not None and plaintext_bytes > row.most_bytes:
        raise CryptoFailure(f"The token takes at most {row.most_bytes} bytes with {row.name}")


def opens(cek: Keys, row: ContentEncryption, sealed: Sealed, aad: bytes, plaintext: bytes) -> bool:
    """Tell whether ``sealed`` holds ``plaintext``."""
    try:
        return unseal(cek, row, sealed, aad) == plaintext
    except DecryptionFailed:
        return False


def require_opens(
    cek: Keys, row: ContentEncryption, sealed: Sealed, aad: bytes, plaintext: bytes
) -> None:
    """Raise ``WrongResult`` unless ``sealed`` holds ``plaintext``, which may exist nowhere else."""
    if not opens(cek, row, sealed, aad, plaintext):
        raise WrongResult("ciphertext")


def round_trip(cek: Keys, row: ContentEncryption, message: bytes, claimed: bytes) -> bool:
    """Tell whether what is sealed with the AAD ``message`` opens with the AAD ``claimed``."""
    sealed = seal(cek, row, message, message)
    require_opens(cek, row, sealed, message, message)
    return opens(cek, row, sealed, claimed, message)


class _Scheme(ABC):
    """How a token seals and opens; ``open`` raises ``PKCS11Error`` or ``DecryptionFailed``."""

    @abstractmethod
    def seal(
        self, cek: Keys, row: ContentEncryption, iv: bytes, plaintext: bytes, aad: bytes
    ) -> Sealed: ...

    @abstractmethod
    def open(self, cek: Keys, row: ContentEncryption, sealed: Sealed, aad: bytes) -> bytes: ...


class _Gcm(_Scheme):
    """The token does all; its ciphertext ends with the tag."""

    def seal(
        self, cek: Keys, row: ContentEncryption, iv: bytes, plaintext: bytes, aad: bytes
    ) -> Sealed:
        (key,) = cek.secrets
        output = key.encrypt(plaintext, **self._parameters(row, iv, aad))
        return Sealed(iv, output[: -row.tag_bytes], output[-row.tag_bytes :])

    def open(self, cek: Keys, row: ContentEncryption, sealed: Sealed, aad: bytes) -> bytes:
        (key,) = cek.secrets
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
        self, cek: Keys, row: ContentEncryption, iv: bytes, plaintext: bytes, aad: bytes
    ) -> Sealed:
        mac_keys, enc_key = self._split(cek)
        ciphertext = enc_key.encrypt(plaintext, mechanism=row.mechanism, mechanism_param=iv)
        tag = mac.compute(mac_keys, _mac(row), authenticated(iv, ciphertext, aad))
        return Sealed(iv, ciphertext, tag)

    def open(self, cek: Keys, row: ContentEncryption, sealed: Sealed, aad: bytes) -> bytes:
        mac_keys, enc_key = self._split(cek)
        iv, ciphertext, tag = sealed
        if not mac.verify(mac_keys, _mac(row), authenticated(iv, ciphertext, aad), tag):
            raise DecryptionFailed
        if not ciphertext or len(ciphertext) % _BLOCK_BYTES:  # tokens differ in what they say
            raise DecryptionFailed
        return enc_key.decrypt(ciphertext, mechanism=row.mechanism, mechanism_param=iv)

    @staticmethod
    def _split(cek: Keys) -> tuple[Keys, Key]:
        mac_key, enc_key = cek.secrets
        return Keys(cek.session, cek.canary, (mac_key,)), enc_key


def _mac(row: ContentEncryption) -> MacAlgorithm:
    assert row.mac is not None  # noqa: S101  # every row of CBC has one
    return row.mac


_SCHEMES: Final[Mapping[Mechanism, _Scheme]] = MappingProxyType(
    {Mechanism.AES_GCM: _Gcm(), Mechanism.AES_CBC_PAD: _CbcHmac()}
)
