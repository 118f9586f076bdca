"""Instants: the present one in logs, and which ones may come from outside."""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

LAST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""The latest that is taken: with a day of time zones to go, all databases and languages know it."""

_SKEW: Final = timedelta(minutes=1)


def now() -> str:
    """Return the present instant in milliseconds (RFC 3339, UTC)."""
    milliseconds = time.time_ns() // 1_000_000
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def is_to_come(instant: datetime) -> bool:
    """Tell whether ``instant`` is between now, by clocks that differ by a minute, and ``LAST``."""
    return datetime.now(UTC) - _SKEW <= instant <= LAST
