"""The time by which clients have deadlines, and the one that they are told."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import Final

_LONGEST_SECONDS: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """How long clients may take: for the header section, and for a whole request or answer."""

    header_seconds: float
    request_seconds: float


class Clock:
    """Counts the seconds in which the worker looks at its connections.

    While the worker is stopped or held up it stands still, but for a second: what a client sends
    meanwhile is not seen, and a client that waits until it can send more is not slow. It stands
    still between two ticks, too: what came before the last one has been read before anybody's time
    is said to be up.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._last = monotonic()
        self.now = 0.0

    def tick(self) -> None:
        """Go on; to be called just before the worker looks."""
        last, self._last = self._last, self._monotonic()
        self.now += min(self._last - last, _LONGEST_SECONDS)


def http_date() -> str:
    """Return the present second for ``Date`` (RFC 9110 §5.6.7), which many answers share."""
    return _date(int(time.time()))


@lru_cache(maxsize=2)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
