"""What is done now and then in the background, for as long as the process lives."""

import atexit
import logging
import random
import threading
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

_STOP_SECONDS: Final = 5.0
_RANDOM: Final = random.SystemRandom()


class Periodic:
    """Does ``work`` in a thread of its own, with a pause of ``pause_seconds`` before each time.

    A function is asked how long that is to be. What ``work`` raises is logged, and it is done
    again. ``at_once`` leaves the first pause out, and ``at_end`` does it once more when it stops;
    ``is_jittered`` makes each pause shorter, so that the processes of a host do not come all at
    once.
    """

    def __init__(  # noqa: PLR0913  # what is done, and when
        self,
        name: str,
        work: Callable[[], object],
        *,
        pause_seconds: float | Callable[[], float],
        at_once: bool = False,
        at_end: bool = False,
        is_jittered: bool = False,
    ) -> None:
        self._name = name
        self._work = work
        self._pause_seconds = pause_seconds
        self._at_once = at_once
        self._at_end = at_end
        self._is_jittered = is_jittered
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._work_on, name=name, daemon=True)

    def start(self) -> None:
        """Begin, and stop when the process ends. Call after fork, never before."""
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """End the thread, after what it is at: the interpreter must not be torn down around it."""
        self._is_stopping.set()
        self._thread.join(_STOP_SECONDS)

    def _work_on(self) -> None:
        if self._at_once:
            self._work_once()
        while not self._is_stopping.wait(self._pause()):
            self._work_once()
        if self._at_end:
            self._work_once()

    def _work_once(self) -> None:
        try:
            self._work()
        except Exception:
            logger.exception("%s has failed, and goes on", self._name)

    def _pause(self) -> float:
        pause = self._pause_seconds
        seconds = pause() if callable(pause) else pause
        return jittered(seconds) if self._is_jittered else seconds


def jittered(seconds: float) -> float:
    """Return a little less, so that the processes of a host do not come all at once."""
    return seconds * _RANDOM.uniform(0.5, 1.0)
