"""Ends a process that hangs inside the token: nothing else gets a thread out of a C call."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from hsm.periodic import Periodic

logger = logging.getLogger(__name__)

EXIT_STATUS: Final = 70
"""EX_SOFTWARE: the process is to be replaced, after a pause."""

Deadline = tuple[float, str]
"""By when a thread has to be back, and from what."""

_LOOK_SECONDS: Final = 0.5
_LONGEST_SECONDS: Final = 1.0


class Watchdog:
    """Knows which thread has to be back from the token by when.

    PKCS#11 has no time-outs and a thread in C hears no signal. So when one is overdue the whole
    process ends, at once, and its server starts another. Time in which the process itself was
    stopped, or its host, does not count, but for a second: nothing could come back then.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._last = monotonic()
        self._stopped_seconds = 0.0
        self._deadlines: dict[int, Deadline] = {}

    def start(self) -> None:
        """Look from now on. Call after fork, never before."""
        self._last = self._monotonic()
        Periodic("hsm-watchdog", self._look, pause_seconds=_LOOK_SECONDS).start()

    def watching(self, what: str, seconds: float) -> "Watch":
        """Demand that the ``with`` block ends within ``seconds``; blocks may nest."""
        return Watch(self._deadlines, (self._now() + seconds, what))

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Have the time of the ``with`` block not count: this thread waits there for others.

        They are watched themselves. Of blocks that nest the innermost may end so much later.
        """
        thread = threading.get_ident()
        held, began = self._deadlines.pop(thread, None), self._now()
        try:
            yield
        finally:
            if held:
                deadline, what = held
                self._deadlines[thread] = deadline + self._now() - began, what

    def _now(self) -> float:
        return self._monotonic() - self._stopped_seconds

    def _look(self) -> None:
        last, self._last = self._last, self._monotonic()
        self._stopped_seconds += max(0.0, self._last - last - _LONGEST_SECONDS)
        now = self._last - self._stopped_seconds
        for deadline, what in list(self._deadlines.values()):
            if now > deadline:
                _end_process(what)


class Watch:
    """Holds the deadline of this thread for one ``with`` block, then that of the block around."""

    __slots__ = ("_deadline", "_deadlines", "_outer")

    def __init__(self, deadlines: dict[int, Deadline], deadline: Deadline) -> None:
        self._deadlines = deadlines
        self._deadline = deadline
        self._outer: Deadline | None

    def __enter__(self) -> None:
        """Begin."""
        thread = threading.get_ident()
        self._outer = self._deadlines.get(thread)
        self._deadlines[thread] = self._deadline

    def __exit__(self, *_error: object) -> None:
        """End."""
        if self._outer:
            self._deadlines[threading.get_ident()] = self._outer
        else:
            del self._deadlines[threading.get_ident()]


def _end_process(what: str) -> None:
    # Not through logging: a thread that hangs may hold its lock.
    text = f"jose-hsm: {what} does not come back from the token: process {os.getpid()} ends\n"
    os.write(2, text.encode())
    os._exit(EXIT_STATUS)
