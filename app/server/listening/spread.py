"""How many connections each worker has, so that who has fewest accepts the next."""

import mmap
import select
import time
from typing import Any, Final

_PLACES: Final = 128
_COURTESY_SECONDS: Final = 0.01
_GLANCE_SECONDS: Final = 0.0005


class Spread:
    """One more than the connections of each worker that accepts, by slot; all processes share it.

    Beyond so many workers two have the same place, and connections are spread less evenly.
    """

    def __init__(self) -> None:
        self._loads = memoryview(mmap.mmap(-1, 4 * _PLACES)).cast("I")

    def note(self, slot: int, connections: int) -> None:
        """Note how many the worker has, and that it accepts more."""
        self._loads[slot % _PLACES] = connections + 1

    def leave(self, slot: int) -> None:
        """Note that the worker accepts nobody."""
        self._loads[slot % _PLACES] = 0

    def is_mine(self, connections: int, listener: Any) -> bool:
        """Tell whether to accept, unless a worker that has fewer does so in a moment.

        Else whoever wakes first takes all that come together, and they stand in line for as long as
        they are kept alive while the other workers idle.
        """
        deadline = time.monotonic() + _COURTESY_SECONDS
        while self._is_fuller(connections) and time.monotonic() < deadline:
            time.sleep(_GLANCE_SECONDS)
            if not select.select([listener], [], [], 0)[0]:
                return False
        return True

    def _is_fuller(self, connections: int) -> bool:
        return any(0 < load <= connections for load in self._loads.tolist())
