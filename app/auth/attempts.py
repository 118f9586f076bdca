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

Who = tuple[str, str]
"""Whom the attempt was for, and the address it came from."""


class Attempts:
    """At most ``most`` failures within a minute for each principal and address."""

    def __init__(self, most: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = now
        self._lock = Lock()
        self._failures: OrderedDict[Who, deque[float]] = OrderedDict()

    def require(self, who: Who) -> None:
        """Raise ``TooManyFailures`` if there is no attempt left."""
        with self._lock:
            times = self._failures.get(who)
            if times is None or len(times) < self._most:
                return
            wait_seconds = times[0] + _WINDOW_SECONDS - self._now()
        if wait_seconds > 0:
            raise TooManyFailures(math.ceil(wait_seconds))

    def failed(self, who: Who) -> None:
        """Count a failure."""
        with self._lock:
            self._failures.setdefault(who, deque(maxlen=self._most)).append(self._now())
            self._failures.move_to_end(who)
            if len(self._failures) > _MOST_REMEMBERED:
                self._failures.popitem(last=False)
