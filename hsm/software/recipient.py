"""JWE for a public key that is nobody's here: all of it in the process (RFC 7516 §5.1)."""

import os
from collections.abc import Callable

from hsm.algorithms.kinds import PublicKey
from hsm.algorithms.tables import CONTENT_ENCRYPTIONS, KEY_MANAGEMENTS
from hsm.messages import Agreement, Encrypted
from hsm.software import peer, sealing


def encrypt_to(  # noqa: PLR0913, PLR0917  # the parts of a JWE
    public: PublicKey,
    alg: str,
    enc: str,
    plaintext: bytes,
    aad: Callable[[Agreement], bytes],
    agreement: Agreement,
) -> Encrypted:
    """Return the parts of a JWE; ``aad`` gets what its header says of the CEK.

    The caller has checked that ``public`` is a key for ``alg``.
    """
    content = CONTENT_ENCRYPTIONS[enc]
    cek = os.urandom(content.key_bytes)
    sent = peer.send(public, KEY_MANAGEMENTS[alg], content, cek, agreement)
    iv = os.urandom(content.iv_bytes)
    sealed = sealing.seal(content, sent.cek, iv, plaintext, aad(sent.agreement))
    return Encrypted(sent.encrypted_key, sealed, sent.agreement)
