"""Public keys that callers bring along: all is done in the process, and no token is asked."""

import os
from collections.abc import Callable, Sequence

from hsm.algorithms.kinds import PublicKey
from hsm.algorithms.tables import CONTENT_ENCRYPTIONS, KEY_MANAGEMENTS, SIGNATURES
from hsm.messages import Agreement, Encrypted, Recipient
from hsm.software import peer, sealing, verify


def is_valid(public: PublicKey, alg: str, signing_input: bytes, signature: bytes) -> bool:
    """Tell whether ``signature`` is one of ``public`` (RFC 7515 §5.2)."""
    return verify.is_valid(public, SIGNATURES[alg], signing_input, signature)


def encrypt_to(  # noqa: PLR0913, PLR0917  # the parts of a JWE
    public: PublicKey,
    alg: str,
    enc: str,
    plaintext: bytes,
    aad: Callable[[Agreement], bytes],
    agreement: Agreement,
) -> Encrypted:
    """Return the parts of a JWE (RFC 7516 §5.1); ``aad`` gets what its header says of the CEK.

    The caller has checked that ``public`` is a key for ``alg``.
    """
    content = CONTENT_ENCRYPTIONS[enc]
    cek = os.urandom(content.key_bytes)
    sent = peer.send(public, KEY_MANAGEMENTS[alg], content, cek, agreement)
    iv = os.urandom(content.iv_bytes)
    sealed = sealing.seal(content, sent.cek, iv, plaintext, aad(sent.agreement))
    return Encrypted(sent.encrypted_key, sealed, sent.agreement)


def encrypt_to_all(
    recipients: Sequence[Recipient], enc: str, plaintext: bytes, aad: bytes
) -> list[Encrypted]:
    """Return the same content for each recipient (RFC 7516 §7.2.1), none of which is ours."""
    content = CONTENT_ENCRYPTIONS[enc]
    cek, iv = os.urandom(content.key_bytes), os.urandom(content.iv_bytes)
    sealed = sealing.seal(content, cek, iv, plaintext, aad)
    sent = [
        peer.send(one.key, KEY_MANAGEMENTS[one.alg], content, cek, one.agreement)
        for one in recipients
    ]
    return [Encrypted(one.encrypted_key, sealed, one.agreement) for one in sent]
