"""Keys wrapped for a token by whoever has them: CKM_RSA_AES_KEY_WRAP (PKCS#11 v2.40 §2.1.21)."""

import os
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hsm.algorithms.families import KeyManagement
from hsm.algorithms.kinds import PrivateKey
from hsm.software.peer import encrypted_for

_AES_BYTES: Final = 32


def wrap_key(to: rsa.RSAPublicKey, row: KeyManagement, key: PrivateKey | bytes) -> bytes:
    """Return ``key`` for the token that has the private half of ``to``.

    That is a new AES key, encrypted with ``row`` and as long as the modulus, and behind it
    AES-KWP (RFC 5649) of the PKCS#8 of a private key, or of the bytes of a secret one.
    """
    aes = os.urandom(_AES_BYTES)
    return encrypted_for(to, row, aes) + aes_key_wrap_with_padding(aes, _octets(key))


def _octets(key: PrivateKey | bytes) -> bytes:
    if isinstance(key, bytes):
        return key
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
