"""Clears away, in the background, what killed processes and lost tokens have left half done."""

import atexit
import logging
import random
import threading
from typing import Final
from uuid import UUID

from app.audit import AuditLog
from app.errors import AuditUnavailable, RegistryUnavailable
from app.keys.recovery import Recovery
from hsm import HsmError

logger = logging.getLogger(__name__)

_STOP_SECONDS: Final = 5.0


class Janitor:
    """Settles now and then; what cannot be settled now is left for the next time.

    Each destruction that it finishes has a line in ``audit_log``.
    """

    def __init__(
        self, recovery: Recovery, audit_log: AuditLog | None, *, pause_seconds: float = 60.0
    ) -> None:
        self._recovery = recovery
        self._audit_log = audit_log
        self._pause_seconds = pause_seconds
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="janitor", daemon=True)

    def start(self) -> None:
        """Begin. Call after fork, never before."""
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """End the thread: the interpreter must not be torn down around a call into the library."""
        self._is_stopping.set()
        self._thread.join(_STOP_SECONDS)

    def _work(self) -> None:
        # Jitter, so that the processes of a host do not come all at once.
        while not self._is_stopping.wait(
            self._pause_seconds * random.SystemRandom().uniform(0.5, 1.0)
        ):
            self.settle()

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
