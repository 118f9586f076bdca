"""CEKs that the token unwraps and cannot split (RFC 7518 §5.2.2.1).

The token wraps and unwraps them as generic secrets, with nothing that the key is not used for
anyway. An unwrapped one it shows, for that one message.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pkcs11 import Attribute, KeyType, MechanismFlag, Object, ObjectClass

from hsm.algorithms.families import ContentEncryption, KeyManagement
from hsm.algorithms.kinds import HMAC
from hsm.cryptoki.handles import Key, bind, temporary
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.session import Session
from hsm.messages import NO_AGREEMENT, Agreement
from hsm.operations.cek import (
    CekPath,
    NewCek,
    Outcome,
    Unwrapped,
    Wrapped,
    mechanism_of,
    outcome_of,
    unless_rejected,
    unwrapping_key,
    wrapping_key,
)

_NO_USE: Final = MechanismFlag(0)


class SplittingPath(CekPath):
    """The token wraps and unwraps the CEK; it is split in the process, and used in the token."""

    residency = "process"

    def carries(self, enc: ContentEncryption) -> bool:
        """See ``CekPath``."""
        return len(enc.parts) > 1

    def wrap(
        self,
        keys: Keys,
        row: KeyManagement,
        enc: ContentEncryption,
        cek: NewCek,
        agreement: Agreement,
    ) -> Wrapped:
        """See ``CekPath``."""
        with temporary(self._whole(keys.session, cek.value)) as whole:
            encrypted_key = wrapping_key(keys, row).wrap_key(whole, **mechanism_of(row))
        return Wrapped(cek.keys, encrypted_key)

    @contextmanager
    def unwrapped(
        self,
        keys: Keys,
        row: KeyManagement,
        enc: ContentEncryption,
        encrypted_key: bytes,
        agreement: Agreement = NO_AGREEMENT,
    ) -> Iterator[Unwrapped]:
        """See ``CekPath``. The substitute is made before the unwrapping."""
        session = keys.session
        substitute = bytearray(session.generate_random(8 * enc.key_bytes))
        unwrapped = self._unwrap(keys, row, encrypted_key)
        # A good padding makes an object that is read, so a bad one does too.
        shown = unwrapped or self._generate_shown(session, enc)
        with temporary(bind(session, shown)):
            value = bytearray(session.read(shown, Attribute.VALUE))
        is_of_size = len(value) == enc.key_bytes
        outcome = outcome_of(row, is_valid=unwrapped is not None, is_of_size=is_of_size)
        is_recovered = outcome is Outcome.RECOVERED
        chosen, other = (value, substitute) if is_recovered else (substitute, value)
        other[:] = bytes(len(other))
        with self._recovered(keys, enc, chosen, outcome) as given:
            yield given

    def _whole(self, session: Session, value: bytes) -> Key:
        return bind(session, session.create_object(self._templates.passing(value)))

    def _unwrap(self, keys: Keys, row: KeyManagement, encrypted_key: bytes) -> Object | None:
        return unless_rejected(
            lambda: unwrapping_key(keys, row).unwrap_key(
                ObjectClass.SECRET_KEY,
                KeyType.GENERIC_SECRET,
                encrypted_key,
                capabilities=_NO_USE,
                template=self._templates.shown(),
                **mechanism_of(row),
            )
        )

    def _generate_shown(self, session: Session, enc: ContentEncryption) -> Object:
        return session.generate_key(
            KeyType.GENERIC_SECRET,
            8 * enc.key_bytes,
            mechanism=HMAC.generation,
            capabilities=_NO_USE,
            template=self._templates.shown(),
        )
