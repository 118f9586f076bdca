"""Workers that die at once, one after the other: how long their successors wait."""

from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace
from typing import cast

import pytest

from app.server import worker
from app.server.worker import Worker

LIVED_SECONDS = 0.3
ALL_PAUSES_SECONDS = 150
HOURS_SECONDS = 2 * 3600


class Clock(SimpleNamespace):
    """Stands in for ``time`` in the module of the worker."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def boots(slot: int, workers: int, clock: Clock) -> Iterator[float]:
    """The times at which workers of a slot boot, each of which dies a moment later."""
    one = cast("Worker", SimpleNamespace(slot=slot, cfg=SimpleNamespace(workers=workers)))
    at, failures = 0.0, 0
    while True:
        yield at
        failures += 1
        clock.now = at + LIVED_SECONDS
        at = clock.now + Worker._pause_after(one, failures)


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 32])
def test_no_minute_sees_six_boots_of_all_workers_together(workers, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(worker, "time", clock)
    number = HOURS_SECONDS // 15
    times = sorted(
        at
        for slot in range(workers)
        for at in islice(boots(slot, workers, clock), number)
        if at > ALL_PAUSES_SECONDS * workers
    )
    assert len(times) > 100
    assert all(sixth - first > 60 for first, sixth in zip(times, times[5:], strict=False))
