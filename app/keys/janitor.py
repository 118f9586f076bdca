"""Ends keys in the background: those whose time is over, and what was begun and left half done."""

import logging
from uuid import UUID

from app.audit import AuditLog
from app.errors import AuditUnavailable, RegistryUnavailable
from app.keys.recovery import Recovery
from hsm import HsmError, Periodic

logger = logging.getLogger(__name__)


class Janitor(Periodic):
    """Destroys and settles now and then; what cannot be done now is left for the next time.

    Each destruction that it finishes has a line in ``audit_log``.
    """

    def __init__(
        self, recovery: Recovery, audit_log: AuditLog | None, *, pause_seconds: float = 60.0
    ) -> None:
        super().__init__("janitor", self.settle, pause_seconds=pause_seconds, is_jittered=True)
        self._recovery = recovery
        self._audit_log = audit_log

    def settle(self) -> None:
        """Destroy, finish or undo what can be now."""
        recovery = self._recovery
        for end, message in (
            (recovery.destroy_overdue, "key %s, whose time is over, is destroyed"),
            (recovery.settle, "key %s, begun and not ended, is cleared away"),
        ):
            try:
                for kid in end(self._record):
                    logger.warning(message, kid)
            except (HsmError, RegistryUnavailable, AuditUnavailable) as error:
                logger.info("nothing is cleared away now: %s", error)
        self._wipe()
        self._merge()

    def _merge(self) -> None:
        try:
            self._recovery.registry.census.tallies.merge()
        except RegistryUnavailable as error:
            logger.info("no counts are merged now: %s", error)

    def _wipe(self) -> None:
        """Wipe what other processes have ended, and this one has unwrapped."""
        try:
            self._recovery.wipe_ended()
        except (HsmError, RegistryUnavailable) as error:
            logger.info("nothing is wiped now: %s", error)

    def _record(self, kid: UUID) -> None:
        if self._audit_log is not None:
            try:
                self._audit_log.record(is_synced=True, endpoint="janitor", destroyed=str(kid))
            except OSError as error:
                raise AuditUnavailable from error
