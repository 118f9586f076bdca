"""Content encryption with AES-GCM in the token (RFC 7518 §5.3)."""

from typing import Final, NamedTuple

from pkcs11 import GCMParams, PKCS11Error

from hsm.algorithms import ContentEncryption
from hsm.canary import Canary
from hsm.errors import DecryptionFailed, WrongResult
from hsm.handles import Key

IV_BYTES: Final = 12
TAG_BYTES: Final = 16


class Sealed(NamedTuple):
    """IV of 12 bytes, ciphertext as long as the plaintext, tag of 16 bytes."""

    iv: bytes
    ciphertext: bytes
    tag: bytes


def encrypt(cek: Key, row: ContentEncryption, plaintext: bytes, aad: bytes) -> Sealed:
    """Encrypt under a fresh random IV of the token (NIST SP 800-38D §8.2.2)."""
    iv = cek.lent.generate_random(8 * IV_BYTES)
    output = cek.encrypt(plaintext, **_mechanism(row, iv, aad))
    return Sealed(iv, output[:-TAG_BYTES], output[-TAG_BYTES:])


def decrypt(cek: Key, row: ContentEncryption, sealed: Sealed, aad: bytes, canary: Canary) -> bytes:
    """Return the plaintext; raise ``DecryptionFailed`` if the tag does not match."""
    try:
        return cek.decrypt(sealed.ciphertext + sealed.tag, **_mechanism(row, sealed.iv, aad))
    except PKCS11Error as error:
        if canary.blames_input(error, cek.lent):
            raise DecryptionFailed from None
        raise


def require_opens(  # noqa: PLR0913, PLR0917  # the parts of a message
    cek: Key,
    row: ContentEncryption,
    sealed: Sealed,
    plaintext: bytes,
    aad: bytes,
    canary: Canary,
) -> None:
    """Raise ``WrongResult`` unless ``sealed`` holds ``plaintext``, which may exist nowhere else."""
    try:
        opened = decrypt(cek, row, sealed, aad, canary)
    except DecryptionFailed:
        opened = None
    if opened != plaintext:
        raise WrongResult("ciphertext")


def _mechanism(row: ContentEncryption, iv: bytes, aad: bytes) -> dict[str, object]:
    return {
        "mechanism": row.mechanism,
        "mechanism_param": GCMParams(iv, aad, 8 * TAG_BYTES),
    }
