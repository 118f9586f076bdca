"""A row and its objects, which change in two phases.

Create: a pending row · the objects · the active row. Destroy: the row is marked · the objects go ·
the row goes. Whoever dies in between leaves what ``recovery`` finishes or undoes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import hsm
from app.errors import RegistryUnavailable
from app.idempotency import IdempotentRequest
from app.keys.description import describe_one
from app.keys.phases.making import Making, public_jwk
from app.registry import Answer, Key, Registry, Tagging
from hsm import CryptoFailure, Hsm, HsmError, KeyNotFound, KeyRef, Made, TokenUnavailable

Record = Callable[[UUID], None]
"""Called with each kid whose objects are destroyed, before its row goes."""

_RECOVERY_WAIT_SECONDS: Final = 2.0


def no_record(_kid: UUID) -> None:
    """Write nothing down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPhases:
    """The registry and the token, which cannot be changed in one transaction.

    ``lock`` is held, shared, while a row and its objects differ. The kernel frees it at death, so
    that whoever holds it alone knows that nothing is under way on this host.
    """

    registry: Registry
    hsm: Hsm
    lock: Path

    def creation(self, key: Key, tagging: Tagging) -> AbstractContextManager[dict[str, Any]]:
        """Add ``key`` as pending for one ``with`` block; see ``creations``."""
        return self.creations([key], tagging, None, partial(describe_one, [key]))

    @contextmanager
    def creations(
        self,
        keys: Sequence[Key],
        tagging: Tagging,
        request: IdempotentRequest | None,
        answer: Answer,
    ) -> Iterator[dict[str, Any]]:
        """Add ``keys`` as pending for one ``with`` block, which activates them; undo after errors.

        Gives what to answer then.
        """
        with self.under_way():
            are_published = self.registry.insert_all(keys, tagging, request=request, answer=answer)
            try:
                yield dict(answer(are_published))
            except BaseException:
                for key in keys:
                    with suppress(HsmError, RegistryUnavailable):  # then ``reconcile`` will
                        # Of a key, too, that may have been activated, and only the answer is lost.
                        self.registry.idempotency.forget(key.kid)
                        self.undo(key.ref)
                raise

    def add(self, making: Making) -> dict[str, Any]:
        """Make keys on the token, all or none; return the answer.

        Raises ``KeyNotFound`` if the wrapping key is gone.
        """
        adding = self.creations(making.keys, making.tagging, making.request, making.answer)
        with adding as answered:
            made = list(map(making.make, (key.ref for key in making.keys)))
            if making.wrapping is None:
                self.registry.activate_all({each.ref: public_jwk(each) for each in made})
            else:
                self._end_wrapping(making.wrapping, *made)
        return answered

    def _end_wrapping(self, wrapping: Key, made: Made) -> None:
        if not self.registry.postponed.end_wrapping(wrapping.kid, made.ref, public_jwk(made)):
            raise KeyNotFound  # another import has used it, or its time is over
        self.finish_soon(wrapping)

    def under_way(self) -> AbstractContextManager[None]:
        """Keep ``recovery`` out for one ``with`` block; 503 while it is at work."""
        return hsm.file_lock(self.lock, shared=True, wait_seconds=_RECOVERY_WAIT_SECONDS)

    def undo(self, ref: KeyRef, record: Record = no_record) -> None:
        """Destroy a key, however far its creation or destruction got."""
        self.registry.abandon(ref.kid)
        self.finish(ref, record)

    def destroy_marked(self, ref: KeyRef) -> None:
        """Destroy the objects of a key whose row is marked; what stays is left to ``recovery``.

        Raises ``TokenUnavailable``, whatever the token says: the key is of no use any more.
        """
        try:
            self.hsm.destroy(ref)
        except CryptoFailure as error:
            raise TokenUnavailable("the token does not destroy the key now") from error

    def finish_soon(self, wrapping: Key) -> None:
        """Destroy a key that has unwrapped its import, now or when the janitor comes."""
        with suppress(HsmError, RegistryUnavailable):
            self.finish(wrapping.ref, no_record)

    def finish(self, ref: KeyRef, record: Record) -> None:
        """Destroy the objects of a key whose row is marked, and remove the row."""
        self.hsm.destroy(ref)
        record(ref.kid)  # a row that stays is found again, and so is one without a record
        self.registry.remove(ref.kid)
