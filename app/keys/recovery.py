"""Finishing or undoing what killed processes and lost tokens have left half done."""

import logging
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import hsm
from app.keys.phases.two_phases import Record, TwoPhases, no_record
from app.registry import LASTING, Registry, State
from hsm import CryptoFailure, Hsm, KeyRef, KeySpec, Storage

logger = logging.getLogger(__name__)

_SETTLE_WAIT_SECONDS: Final = 0.2
GRACE: Final = timedelta(minutes=1)
OTHER_HOST_GRACE: Final = timedelta(minutes=10)


class Reconciliation(NamedTuple):
    """What ``reconcile`` found: kids finished or undone, rows without key, keys without row."""

    settled: list[UUID]
    missing: list[UUID]
    unknown: list[UUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Brings rows and objects together again."""

    registry: Registry
    hsm: Hsm
    phases: TwoPhases

    def reconcile(self, *, dry_run: bool, record: Record = no_record) -> Reconciliation:
        """Finish or undo what killed processes left, and tell what else differs.

        A key without a row is never destroyed: it may be that of a registry restored too old.
        """
        with hsm.file_lock(self.phases.lock):
            unfinished = self._unfinished(timedelta(0))
            settled = sorted(unfinished) if dry_run else self._undo(unfinished, record)
            missing, unknown = self._differences()
            return Reconciliation(settled, sorted(missing), sorted(unknown))

    def _differences(self) -> tuple[Set[UUID], Set[UUID]]:
        """Return the kids of rows without key, and of keys without row.

        What other hosts make and destroy, now or when they are there again, is neither.
        """
        begun = self._kept(State)
        missing, others = self.hsm.differences(self._kept(LASTING))
        unknown = others - begun.keys() - self._kept(State).keys()
        return missing & self._kept(LASTING).keys(), unknown

    def _kept(self, states: Iterable[State]) -> Mapping[UUID, KeySpec]:
        return self.registry.specs(states, [Storage.TOKEN])

    def settle(self, record: Record = no_record) -> list[UUID]:
        """Finish or undo what was begun minutes ago and not ended; return the kids.

        Raises ``TokenUnavailable`` if keys are being made or destroyed: then it can wait.
        """
        if not self._unfinished(GRACE):
            return []
        with hsm.file_lock(self.phases.lock, wait_seconds=_SETTLE_WAIT_SECONDS):
            return self._undo(self._unfinished(GRACE), record)

    def destroy_overdue(self, record: Record = no_record) -> list[UUID]:
        """Destroy the keys that cannot be had back any more; return the kids.

        Of those who do so at a time one marks the row, and goes on. What he leaves when he is
        killed ``settle`` finishes. Raises ``TokenUnavailable``: then it can wait.
        """
        destroyed, is_more = list[UUID](), True
        others_before = datetime.now(UTC) - OTHER_HOST_GRACE
        while is_more:
            is_more = False  # unless one is ours: all others are somebody else's
            for ref in self.registry.postponed.overdue(others_before=others_before).values():
                self.hsm.offers()  # while the token is away the key stays as it is
                with self.phases.under_way():
                    if self.registry.postponed.mark_destroyed(ref.kid):
                        is_more = True
                        if _is_done(self.phases.finish, ref, record):
                            destroyed.append(ref.kid)
        return destroyed

    def wipe_ended(self) -> None:
        """Wipe keys that are unwrapped in this process, and have been ended by others since."""
        held = self.hsm.keeping.held()
        if held and (ended := held - self.registry.census.active_of(held)):
            self.hsm.keeping.forget(ended)

    def _unfinished(self, grace: timedelta) -> Mapping[UUID, KeyRef]:
        now = datetime.now(UTC)
        return self.registry.unfinished(here_before=now - grace, before=now - OTHER_HOST_GRACE)

    def _undo(self, unfinished: Mapping[UUID, KeyRef], record: Record) -> list[UUID]:
        """Undo what can be; return the kids."""
        refs = unfinished.values()
        return sorted(ref.kid for ref in refs if _is_done(self.phases.undo, ref, record))


def _is_done(end: Callable[[KeyRef, Record], None], ref: KeyRef, record: Record) -> bool:
    """End a key; tell whether the token has let it go. One that it keeps keeps no other one."""
    try:
        end(ref, record)
    except CryptoFailure as error:  # somebody else has made it, so that nobody destroys it
        logger.warning("key %s stays on the token: %s", ref.kid, error)
        return False
    return True
