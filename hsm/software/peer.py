"""The sender of a message, in software: it has the public key, or shares the secret one."""

import os
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from hsm.algorithms.families import (
    ContentEncryption,
    GcmKeyWrapping,
    KeyAgreement,
    KeyManagement,
    KeyWrapping,
    RsaOaep,
)
from hsm.algorithms.kinds import AgreementKey, curve_of
from hsm.messages import NO_AGREEMENT, Agreement, agreed_bytes, other_info
from hsm.software import sealing


class Sent(NamedTuple):
    """A CEK, and how its recipient gets it."""

    cek: bytes
    encrypted_key: bytes
    agreement: Agreement = NO_AGREEMENT

    def __repr__(self) -> str:
        return "<Sent>"


def send(
    to: Any,
    row: KeyManagement,
    enc: ContentEncryption,
    cek: bytes,
    agreement: Agreement = NO_AGREEMENT,
) -> Sent:
    """Return ``cek`` as it is sent, or the one that both sides agree on instead.

    ``to`` is the public key of the recipient, or the bytes of the shared one. ``agreement`` says
    what the parties are called, and gets the ephemeral key.
    """
    if isinstance(row, GcmKeyWrapping):
        iv, encrypted_key, tag = sealing.seal(
            row.content, to, os.urandom(row.content.iv_bytes), cek, b""
        )
        return Sent(cek, encrypted_key, Agreement(iv=iv, tag=tag))
    if not isinstance(row, KeyAgreement):
        return Sent(cek, encrypted_for(to, row, cek))
    epk, z = _agree(to)
    agreement = agreement._replace(epk=epk)
    key_bytes = agreed_bytes(row, enc)
    key = ConcatKDFHash(hashes.SHA256(), key_bytes, other_info(row, enc, agreement)).derive(z)
    if row.wrapping is None:
        return Sent(key, b"", agreement)
    return Sent(cek, aes_key_wrap(key, cek), agreement)


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


def _agree(to: AgreementKey) -> tuple[AgreementKey, bytes]:
    """Return an ephemeral public key, and Z."""
    if isinstance(to, ec.EllipticCurvePublicKey):
        own = ec.generate_private_key(to.curve)
        return own.public_key(), own.exchange(ec.ECDH(), to)
    ephemeral = curve_of(to).private_class.generate()
    return ephemeral.public_key(), ephemeral.exchange(to)
