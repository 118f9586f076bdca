"""The lane of what takes a processor for seconds, so that it starves nobody."""

import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Final, TypeVar

from hsm.errors import Cause, TokenUnavailable

Result = TypeVar("Result")

_MOST_WAITING: Final = 7
_NICE: Final = 5


class Generations:
    """Runs ``width`` generations or checks at a time; a few more may wait, others are refused.

    A token in the process (SoftHSM) searches primes on the processors that serve everybody. So the
    threads of the lane get a third of what others get where both want a processor. With the lowest
    priority it would be a seventieth: on a busy machine no pair would be made before the watchdog
    ends the process.
    """

    def __init__(self, width: int) -> None:
        self._places = BoundedSemaphore(width + _MOST_WAITING)
        self._threads = ThreadPoolExecutor(
            width,
            "hsm-generation",
            initializer=os.nice,  # on Linux that of the calling thread alone
            initargs=(_NICE,),
        )

    def run(self, generate: Callable[[], Result]) -> Result:
        """Return what ``generate`` returns; raise ``TokenUnavailable`` if too many are waiting."""
        if not self._places.acquire(blocking=False):
            raise TokenUnavailable("too many keys are being generated or checked", cause=Cause.BUSY)
        try:
            # In the caller's context: what is measured there belongs to the caller's request.
            return self._threads.submit(contextvars.copy_context().run, generate).result()
        finally:
            self._places.release()
