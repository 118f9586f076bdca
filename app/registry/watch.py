"""Asks the registry now and then whether it answers, so that nobody has to wait to know."""

import time
from collections.abc import Callable
from typing import Final

from app.errors import RegistryCause, RegistryUnavailable
from hsm import Periodic

_PAUSE_SECONDS: Final = 5.0
_SHORT_PAUSE_SECONDS: Final = 0.25
_PATIENCE_SECONDS: Final = 5.0


class Watch:
    """What is known of the registry, which ``check`` raises ``RegistryUnavailable`` of."""

    def __init__(self, check: Callable[[], object]) -> None:
        self._check = check
        self._answered: RegistryCause | None = RegistryCause.STARTING
        self._asked_at: float | None = None

    @property
    def cause(self) -> RegistryCause | None:
        """Why the registry did not answer, or not within a few seconds; ``None`` if it did."""
        asked_at = self._asked_at
        is_late = asked_at is not None and time.monotonic() - asked_at > _PATIENCE_SECONDS
        return RegistryCause.REGISTRY if is_late else self._answered

    def start(self) -> None:
        """Begin to ask, in the background. Call after fork, never before."""
        Periodic("registry-watch", self._ask, pause_seconds=self._pause, at_once=True).start()

    def _pause(self) -> float:
        """Ask again soon where only the token is missing: it is open long before the next time."""
        is_unconfirmed = self._answered is RegistryCause.UNCONFIRMED
        return _SHORT_PAUSE_SECONDS if is_unconfirmed else _PAUSE_SECONDS

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        answered: RegistryCause | None = RegistryCause.REGISTRY
        try:
            self._check()
            answered = None
        except RegistryUnavailable as error:
            answered = error.cause
        finally:
            self._answered = answered
            self._asked_at = None
