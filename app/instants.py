"""The time in logs."""

import time
from functools import lru_cache


def now() -> str:
    """Return the present instant in milliseconds (RFC 3339, UTC)."""
    milliseconds = time.time_ns() // 1_000_000
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
