"""The other side, in software: what is sent by who has the public key, or shares a secret one."""

from functools import singledispatch
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, x25519
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from hsm.algorithms.families import (
    ContentEncryption,
    KeyAgreement,
    KeyManagement,
    KeyWrapping,
    RsaOaep,
)
from hsm.cryptoki.material import AgreementKey
from hsm.operations.ecdh import Agreement, agreed_bytes, other_info


class Sent(NamedTuple):
    """A CEK, and how its recipient gets it."""

    cek: bytes
    encrypted_key: bytes
    said: Agreement = Agreement()

    def __repr__(self) -> str:
        return "<Sent>"


def send(to: Any, row: KeyManagement, enc: ContentEncryption, cek: bytes) -> Sent:
    """Return ``cek`` as it is sent, or the one that both sides agree on instead.

    ``to`` is the public key of the recipient, or the bytes of the shared one.
    """
    if not isinstance(row, KeyAgreement):
        return Sent(cek, encrypted_for(to, row, cek))
    epk, z = _agree(to)
    said = Agreement(epk)
    key_bytes = agreed_bytes(row, enc)
    key = ConcatKDFHash(hashes.SHA256(), key_bytes, other_info(row, enc, said)).derive(z)
    if row.wrapping is None:
        return Sent(key, b"", said)
    return Sent(cek, aes_key_wrap(key, cek), said)


def encrypted_for(to: Any, row: KeyManagement, cek: bytes) -> bytes:
    """Return ``cek`` encrypted to the public key of the recipient, or under the shared one."""
    if isinstance(row, KeyWrapping):
        return aes_key_wrap(to, cek)
    assert isinstance(to, rsa.RSAPublicKey)  # noqa: S101  # all others are of RSA
    return to.encrypt(cek, _padding(row))


def _padding(row: KeyManagement) -> padding.AsymmetricPadding:
    if isinstance(row, RsaOaep):
        return padding.OAEP(padding.MGF1(row.hash), row.hash, None)
    return padding.PKCS1v15()


@singledispatch
def _agree(_to: Any) -> tuple[AgreementKey, bytes]:
    raise NotImplementedError


@_agree.register
def _(to: ec.EllipticCurvePublicKey) -> tuple[AgreementKey, bytes]:
    ephemeral = ec.generate_private_key(to.curve)
    return ephemeral.public_key(), ephemeral.exchange(ec.ECDH(), to)


@_agree.register
def _(to: x25519.X25519PublicKey) -> tuple[AgreementKey, bytes]:
    ephemeral = x25519.X25519PrivateKey.generate()
    return ephemeral.public_key(), ephemeral.exchange(to)
