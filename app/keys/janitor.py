"""Clears away, in the background, what killed processes and lost tokens have left half done."""

import logging
from uuid import UUID

from app.audit import AuditLog
from app.errors import AuditUnavailable, RegistryUnavailable
from app.keys.recovery import Recovery
from hsm import HsmError, Periodic

logger = logging.getLogger(__name__)


class Janitor(Periodic):
    """Settles now and then; what cannot be settled now is left for the next time.

    Each destruction that it finishes has a line in ``audit_log``.
    """

    def __init__(
        self, recovery: Recovery, audit_log: AuditLog | None, *, pause_seconds: float = 60.0
    ) -> None:
        super().__init__("janitor", self.settle, pause_seconds=pause_seconds, is_jittered=True)
        self._recovery = recovery
        self._audit_log = audit_log

    def settle(self) -> None:
        """Finish or undo what can be now."""
        try:
            for kid in self._recovery.settle(self._record):
                logger.warning("key %s, begun and not ended, is cleared away", kid)
        except (HsmError, RegistryUnavailable, AuditUnavailable) as error:
            logger.info("nothing is cleared away now: %s", error)

    def _record(self, kid: UUID) -> None:
        if self._audit_log is not None:
            try:
                self._audit_log.record(is_synced=True, endpoint="janitor", destroyed=str(kid))
            except OSError as error:
                raise AuditUnavailable from error
