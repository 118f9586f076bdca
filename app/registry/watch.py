"""Asks the registry now and then whether it answers, so that nobody has to wait to know."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from uuid import UUID

from app.errors import RegistryUnavailable
from hsm import Periodic

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
        Periodic("registry-watch", self._ask, pause_seconds=_PAUSE_SECONDS, at_once=True).start()

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        has_answered = False
        try:
            with suppress(RegistryUnavailable):
                self._find(_NOBODY)
                has_answered = True
        finally:
            self._has_answered = has_answered
            self._asked_at = None
