"""CEKs of RSA-OAEP whose padding the token does not know: it is decoded in the process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pkcs11 import Mechanism

from hsm.algorithms.families import ContentEncryption, RsaOaep
from hsm.cryptoki.handles import Key
from hsm.cryptoki.keys import Keys
from hsm.messages import NO_AGREEMENT, Agreement
from hsm.operations.cek import (
    CekPath,
    NewCek,
    Unwrapped,
    Wrapped,
    outcome_of,
    unless_rejected,
)
from hsm.software import oaep, peer

_SHORTEST_BYTES: Final = 2048 // 8
_LONGEST_BYTES: Final = 4096 // 8


class ProcessPath(CekPath):
    """The CEK of a message passes through the process; the private key does not."""

    residency = "process"
    takes_bare_rsa = True

    def carries(self, enc: ContentEncryption) -> bool:
        """See ``CekPath``."""
        return True

    def wrap(
        self,
        keys: Keys,
        row: RsaOaep,
        enc: ContentEncryption,
        cek: NewCek,
        agreement: Agreement,
    ) -> Wrapped:
        """See ``CekPath``."""
        return Wrapped(cek.keys, peer.encrypted_for(keys.public.numbers, row, cek.value))

    @contextmanager
    def unwrapped(
        self,
        keys: Keys,
        row: RsaOaep,
        enc: ContentEncryption,
        encrypted_key: bytes,
        agreement: Agreement = NO_AGREEMENT,
    ) -> Iterator[Unwrapped]:
        """See ``CekPath``. The substitute is made before the RSA operation."""
        substitute = keys.session.generate_random(8 * enc.key_bytes)
        encoded = self._encoded_message(keys.private, encrypted_key)
        decoded = oaep.decode(encoded, row.hash, substitute)
        outcome = outcome_of(row, is_valid=decoded.is_valid, is_of_size=decoded.is_of_size)
        with self._recovered(keys, enc, decoded.cek, outcome) as unwrapped:
            yield unwrapped

    @staticmethod
    def _encoded_message(private: Key, encrypted_key: bytes) -> bytes:
        """Return EM; random bytes, as many, if ``encrypted_key`` is no number below the modulus."""
        octets = min(max(len(encrypted_key), _SHORTEST_BYTES), _LONGEST_BYTES)
        substitute: bytes = private.lent.generate_random(8 * octets)
        encoded = unless_rejected(
            lambda: private.decrypt(encrypted_key, mechanism=Mechanism.RSA_X_509)
        )
        return substitute if encoded is None else encoded
