"""CEKs that a shared key encrypts with AES-GCM, as if they were content (RFC 7518 §4.7)."""

from collections.abc import Iterator
from contextlib import contextmanager

from hsm.algorithms.families import ContentEncryption, GcmKeyWrapping
from hsm.cryptoki.keys import Keys
from hsm.errors import DecryptionFailed
from hsm.messages import NO_AGREEMENT, Agreement, Sealed
from hsm.operations import content
from hsm.operations.cek import CekPath, NewCek, Outcome, Unwrapped, Wrapped, outcome_of


class SealingPath(CekPath):
    """The CEK of a message passes through the process; the key that encrypts it does not."""

    residency = "process"

    def carries(self, enc: ContentEncryption) -> bool:
        """See ``CekPath``."""
        return True

    def wrap(
        self,
        keys: Keys,
        row: GcmKeyWrapping,
        enc: ContentEncryption,
        cek: NewCek,
        agreement: Agreement,
    ) -> Wrapped:
        """See ``CekPath``. The AAD is empty (§4.7)."""
        iv, encrypted_key, tag = content.seal(keys, row.content, cek.value, b"")
        return Wrapped(cek.keys, encrypted_key, Agreement(iv=iv, tag=tag))

    @contextmanager
    def unwrapped(
        self,
        keys: Keys,
        row: GcmKeyWrapping,
        enc: ContentEncryption,
        encrypted_key: bytes,
        agreement: Agreement = NO_AGREEMENT,
    ) -> Iterator[Unwrapped]:
        """See ``CekPath``. The substitute is made before the decryption."""
        substitute = bytearray(keys.session.generate_random(8 * enc.key_bytes))
        sealed = Sealed(agreement.iv, encrypted_key, agreement.tag)
        value = _opened(keys, row, sealed)
        is_of_size = len(value or b"") == enc.key_bytes
        outcome = outcome_of(row, is_valid=value is not None, is_of_size=is_of_size)
        chosen = value if value is not None and outcome is Outcome.RECOVERED else substitute
        with self._recovered(keys, enc, chosen, outcome) as unwrapped:
            yield unwrapped


def _opened(keys: Keys, row: GcmKeyWrapping, sealed: Sealed) -> bytearray | None:
    try:
        return bytearray(content.unseal(keys, row.content, sealed, b"", looks=1))
    except DecryptionFailed:
        return None
