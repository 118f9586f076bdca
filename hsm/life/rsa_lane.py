"""The lane of what takes a processor for seconds, so that it starves nobody."""

import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import BoundedSemaphore
from typing import Final, TypeVar

from hsm.errors import Cause, TokenUnavailable

Result = TypeVar("Result")

_MOST_WAITING: Final = 7
_WAIT_SECONDS: Final = 15.0
_NICE: Final = 5
_PROCESSORS: Final = os.sched_getaffinity(0)
"""What the service may compute on: this is loaded before a worker is bound to one of them."""


class Generations:
    """Runs ``width`` generations or checks at a time; a few more may wait, others are refused.

    Who waits here has waited for a turn before, and a proxy in front gives up after a minute: then
    a key would be made for nobody. So the wait is bounded in time, too.

    A token in the process (SoftHSM) searches primes on the processors that serve everybody. So the
    threads of the lane get a third of what others get where both want a processor. With the lowest
    priority it would be a seventieth: on a busy machine no pair would be made before the watchdog
    ends the process. They compute on any processor: a worker has its other threads on one.
    """

    def __init__(self, width: int, *, wait_seconds: float = _WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._places = BoundedSemaphore(width + _MOST_WAITING)
        self._threads = ThreadPoolExecutor(
            width,
            "hsm-generation",
            initializer=_begin,
        )

    def run(self, generate: Callable[[], Result]) -> Result:
        """Return what ``generate`` returns, however long it takes once it has begun.

        Raises ``TokenUnavailable`` if too many are waiting, or its turn has not come in time.
        """
        if not self._places.acquire(blocking=False):
            raise _busy()
        try:
            # In the caller's context: what is measured there belongs to the caller's request.
            running = self._threads.submit(contextvars.copy_context().run, generate)
            wait([running], self._wait_seconds)
            if running.cancel():
                raise _busy()
            return running.result()
        finally:
            self._places.release()


def _begin() -> None:
    """Prepare a thread of the lane: on Linux both are of the calling thread alone."""
    os.nice(_NICE)
    os.sched_setaffinity(0, _PROCESSORS)


def _busy() -> TokenUnavailable:
    return TokenUnavailable("too many keys are being generated or checked", cause=Cause.BUSY)
