"""Failed attempts to authenticate, counted by each process for itself."""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from threading import Lock
from typing import Final

from app.errors import TooManyFailures

_WINDOW_SECONDS: Final = 60.0
_MOST_REMEMBERED: Final = 10_000


class Attempts:
    """At most ``most`` failures within a minute for each address."""

    def __init__(self, most: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = now
        self._lock = Lock()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def fail(self, address: str) -> None:
        """Count a failure; raise ``TooManyFailures`` instead if there have been as many."""
        with self._lock:
            times = self._failures.setdefault(address, deque(maxlen=self._most))
            self._failures.move_to_end(address)
            if len(self._failures) > _MOST_REMEMBERED:
                self._failures.popitem(last=False)
            now = self._now()
            begins = times[0] + _WINDOW_SECONDS if len(times) == self._most else now
            if begins > now:
                raise TooManyFailures(math.ceil(begins - now))
            times.append(now)
