"""Asks the registry now and then whether it answers, so that nobody has to wait to know."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from app.errors import RegistryUnavailable

logger = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 5.0
_NOBODY: Final = UUID(int=0)


class Watch:
    """What is known of the registry that ``find`` asks."""

    def __init__(self, find: Callable[[UUID], object]) -> None:
        self._find = find
        self._has_answered = False
        self._asked_at: float | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the registry has not answered, or not within a few seconds."""
        asked_at = self._asked_at
        is_late = asked_at is not None and time.monotonic() - asked_at > _PATIENCE_SECONDS
        return is_late or not self._has_answered

    def start(self) -> None:
        """Begin to ask, in the background. Call after fork, never before."""
        threading.Thread(target=self._ask_on, name="registry-watch", daemon=True).start()

    def _ask_on(self) -> None:
        while True:
            self._asked_at = time.monotonic()
            try:
                self._find(_NOBODY)
                self._has_answered = True
            except Exception as error:  # nothing may end this thread
                self._has_answered = False
                if not isinstance(error, RegistryUnavailable):
                    logger.exception("the registry cannot be asked")
            self._asked_at = None
            time.sleep(_PAUSE_SECONDS)
