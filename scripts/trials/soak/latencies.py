"""How long good callers waited, and beside which trouble."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

_MILLISECONDS: Final = 1000


class Percentiles(NamedTuple):
    """Of the times of some requests, in milliseconds."""

    number: int
    p50: float
    p95: float
    p99: float

    def __str__(self) -> str:
        return f"{self.number} {self.p50:.0f} {self.p95:.0f} {self.p99:.0f}"


class Latencies:
    """Times of requests, by the trouble during which they began."""

    def __init__(self) -> None:
        self._requests: list[tuple[float, float]] = []
        self._spans: list[tuple[str, float, float]] = []

    def note(self, began: float) -> None:
        """Take a request that was answered just now, at whatever thread."""
        self._requests.append((began, time.monotonic() - began))

    @contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """Note what lasts as long as the ``with`` block."""
        began = time.monotonic()
        yield
        self._spans.append((kind, began, time.monotonic()))

    def percentiles(self) -> dict[str, Percentiles]:
        """Return those of each kind of trouble that saw enough requests."""
        kinds = {kind for kind, _, _ in self._spans}
        found = {kind: self._milliseconds(kind) for kind in sorted(kinds)}
        return {kind: _percentiles(times) for kind, times in found.items() if len(times) > 1}

    def _milliseconds(self, kind: str) -> list[float]:
        spans = [(begin, end) for name, begin, end in self._spans if name == kind]
        return [
            seconds * _MILLISECONDS
            for began, seconds in self._requests
            if any(begin <= began < end for begin, end in spans)
        ]


def _percentiles(times: list[float]) -> Percentiles:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return Percentiles(len(times), cuts[49], cuts[94], cuts[98])
