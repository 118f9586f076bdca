"""When workers ended."""

import threading
import time
from typing import Final

from tests.faults.service import Service

EXPLAINED_SECONDS: Final = 3.0


class Ends:
    """When workers were seen to end: what cuts requests off, and nothing else may."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._moments: list[float] = []
        self._is_over = threading.Event()

    def close(self) -> None:
        """Look no more."""
        self._is_over.set()

    def watch(self) -> None:
        """Look until it is over."""
        seen = set(self._service.workers)
        while not self._is_over.wait(0.05):
            now = set(self._service.workers)
            self._moments += [time.monotonic()] * len(seen - now)
            seen = now

    @property
    def number(self) -> int:
        """How many have ended."""
        return len(self._moments)

    def explain(self, moment: float) -> bool:
        """Tell whether a worker ended about ``moment``."""
        return any(abs(moment - end) < EXPLAINED_SECONDS for end in self._moments)
