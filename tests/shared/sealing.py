"""Content encryption by another implementation (RFC 7518 §5.2, §5.3), under IVs of one's own."""

import hmac

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

import hsm

CEK_BYTES = {
    "A128GCM": 16,
    "A192GCM": 24,
    "A256GCM": 32,
    "A128CBC-HS256": 32,
    "A192CBC-HS384": 48,
    "A256CBC-HS512": 64,
}
IV_BYTES = {enc: 12 if enc.endswith("GCM") else 16 for enc in CEK_BYTES}
TAG_BYTES = {enc: 16 if enc.endswith("GCM") else size // 2 for enc, size in CEK_BYTES.items()}
CBC_HMAC = tuple(enc for enc in CEK_BYTES if not enc.endswith("GCM"))
HASHES = {"A128CBC-HS256": "sha256", "A192CBC-HS384": "sha384", "A256CBC-HS512": "sha512"}


def ciphertext_bytes(enc: str, length: int) -> int:
    """Return how long the ciphertext is: AES-CBC always pads, to whole blocks."""
    return 16 * (length // 16 + 1) if enc in CBC_HMAC else length


def seal(enc: str, cek: bytes, iv: bytes, plaintext: bytes, aad: bytes) -> hsm.Sealed:
    """Return what ``enc`` makes of ``plaintext``."""
    if enc not in HASHES:
        output = AESGCM(cek).encrypt(iv, plaintext, aad)
        return hsm.Sealed(iv, output[:-16], output[-16:])
    padder = PKCS7(128).padder()
    return seal_padded(enc, cek, iv, padder.update(plaintext) + padder.finalize(), aad)


def seal_padded(enc: str, cek: bytes, iv: bytes, padded: bytes, aad: bytes) -> hsm.Sealed:
    """Return what AES-CBC with HMAC makes of blocks that somebody has padded, or not."""
    middle = len(cek) // 2
    encryptor = Cipher(AES(cek[middle:]), CBC(iv)).encryptor()
    ciphertext = encryptor.update(padded) + encryptor.finalize()
    return hsm.Sealed(iv, ciphertext, tag(enc, cek, iv, ciphertext, aad))


def tag(enc: str, cek: bytes, iv: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """Return the tag over anything."""
    authenticated = aad + iv + ciphertext + (8 * len(aad)).to_bytes(8)
    middle = len(cek) // 2
    return hmac.digest(cek[:middle], authenticated, HASHES[enc])[:middle]
