"""Waiting for others, whose own time is watched."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

Resting = Callable[[], AbstractContextManager[None]]
"""Has the time not count in which one waits for others; see ``Watchdog``."""


@contextmanager
def alone(lock: AbstractContextManager[object], resting: Resting) -> Iterator[None]:
    """Hold ``lock`` for one ``with`` block; the wait for it, and no more, is ``resting``."""
    with ExitStack() as held:
        with resting():
            held.enter_context(lock)
        yield
