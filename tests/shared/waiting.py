"""Waiting for what comes: no test depends on a quick machine."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

PATIENCE_SECONDS: Final = 300.0
"""After so long something hangs, however busy the machine is."""

_PAUSE_SECONDS: Final = 0.02

Value = TypeVar("Value")


def until(condition: Callable[[], Value | None], *, seconds: float = PATIENCE_SECONDS) -> Value:
    """Return what ``condition`` gives as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(_PAUSE_SECONDS)
    return value
