"""Content encryption in software, as a peer does it: to prove with that the token does the same."""

import hmac

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from hsm.algorithms.families import ContentEncryption
from hsm.messages import Sealed, authenticated


def seal(row: ContentEncryption, cek: bytes, iv: bytes, plaintext: bytes, aad: bytes) -> Sealed:
    """Return what ``row`` makes of ``plaintext``."""
    if row.mac is None:
        output = AESGCM(cek).encrypt(iv, plaintext, aad)
        return Sealed(iv, output[: -row.tag_bytes], output[-row.tag_bytes :])
    mac_key, enc_key = cek[: row.tag_bytes], cek[row.tag_bytes :]
    padder, encryptor = PKCS7(AES.block_size).padder(), Cipher(AES(enc_key), CBC(iv)).encryptor()
    ciphertext = encryptor.update(padder.update(plaintext) + padder.finalize())
    mac = hmac.digest(mac_key, authenticated(iv, ciphertext, aad), row.mac.hash_name)
    return Sealed(iv, ciphertext, mac[: row.tag_bytes])
