"""Short work is done by one thread at a time, long work side by side.

Threads that compute at once take the interpreter from each other at every call into the token. So
two batches of MACs at once took twice the processor time of two in a row. A call that takes long
needs no interpreter meanwhile, and the processor or the network has room for another.
"""

import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import Final

_LONG_SECONDS: Final = 0.0004
_PATIENCE_SECONDS: Final = 0.05
"""More than a turn of a session: who has waited in vain does it side by side with the other."""


class OneAtATime:
    """Knows of each kind of work how long it takes, and has what is short done in turn."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._shortest_seconds: dict[Hashable, float] = {}

    @contextmanager
    def short(self) -> Iterator[None]:
        """Do the ``with`` block alone, unless another takes unusually long."""
        is_alone = self._lock.acquire(timeout=_PATIENCE_SECONDS)
        try:
            yield
        finally:
            if is_alone:
                self._lock.release()

    @contextmanager
    def measured(self, kind: Hashable, done: list[object]) -> Iterator[None]:
        """Do so with work of a ``kind`` of which one piece is short; count those in ``done``.

        The shortest time counts: others were disturbed. What is not known yet may be long.
        """
        shortest_seconds = self._shortest_seconds.get(kind, _LONG_SECONDS)
        with self.short() if shortest_seconds < _LONG_SECONDS else nullcontext():
            started = time.perf_counter()
            yield
        if done:
            took_seconds = (time.perf_counter() - started) / len(done)
            self._shortest_seconds[kind] = min(shortest_seconds, took_seconds)


ONE_AT_A_TIME: Final = OneAtATime()
"""For all threads of this process."""
