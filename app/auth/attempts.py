"""Failed attempts to authenticate, counted by each process for itself."""

import math
import time
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Final

from cachetools import LRUCache

from app.errors import TooManyFailures

_WINDOW_SECONDS: Final = 60.0
_MOST_REMEMBERED: Final = 10_000


class Attempts:
    """At most ``most`` failures within a minute for each address."""

    def __init__(self, most: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = now
        self._lock = Lock()
        self._failures: LRUCache[str, deque[float]] = LRUCache(_MOST_REMEMBERED)

    def fail(self, address: str) -> None:
        """Count a failure; raise ``TooManyFailures`` instead if there have been as many."""
        with self._lock:
            times = self._failures.setdefault(address, deque(maxlen=self._most))
            now = self._now()
            begins = times[0] + _WINDOW_SECONDS if len(times) == self._most else now
            if begins > now:
                raise TooManyFailures(math.ceil(begins - now))
            times.append(now)
