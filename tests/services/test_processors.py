"""Each worker computes on one processor where that is fair, and only the lane on any."""

import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from scripts.throwaway import Server, connected_workers, server
from scripts.workers import is_gone, kill, workers_of
from tests.shared.api import Api
from tests.shared.waiting import REPLACEMENT, START, until

PROCESSORS = sorted(os.sched_getaffinity(0))[:2]
WORKERS = 2


@contextmanager
def on_few(environment: Mapping[str, str], workers: int) -> Iterator[Server]:
    """Serve where ``PROCESSORS`` are all that there are."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, PROCESSORS)  # a process has at first what the thread has that starts it
    try:
        with server(environment, workers=workers) as running:
            until(lambda: connected_workers(running.url) == workers, within=START)
            yield running
    finally:
        os.sched_setaffinity(0, own)


@pytest.fixture(scope="module")
def running(environment: dict[str, str]) -> Iterator[Server]:
    """A service in which each processor can have as many workers as any other."""
    with on_few(environment, WORKERS) as it:
        yield it


def places(pid: int) -> Counter[tuple[int, ...]]:
    """Return the processors that the threads of a process may compute on."""
    found: Counter[tuple[int, ...]] = Counter()
    with suppress(FileNotFoundError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):  # it has ended
                found[tuple(sorted(os.sched_getaffinity(int(thread.name))))] += 1
    return found


def shared_out(running: Server) -> list[tuple[int, ...]]:
    """Return the processor of each worker: all its threads have that one."""
    found = [places(pid) for pid in workers_of(running.process.pid)]
    return sorted(place for each in found for place in each)


def fair() -> list[tuple[int, ...]]:
    return sorted((PROCESSORS[n % len(PROCESSORS)],) for n in range(WORKERS))


def test_each_processor_has_as_many_workers(running):
    assert shared_out(running) == fair()
    Api.over_http(running.url).create(kty="oct", alg="HS256")
    assert shared_out(running) == fair()


def test_who_replaces_a_worker_has_its_processor(running):
    for _ in range(3):
        victim = max(workers_of(running.process.pid))
        kill(victim)
        until(partial(is_gone, victim), within=REPLACEMENT)
        until(lambda: shared_out(running) == fair(), within=REPLACEMENT)


def test_so_it_is_after_a_reload(running):
    old = workers_of(running.process.pid)
    running.process.send_signal(signal.SIGHUP)
    until(lambda: all(map(is_gone, old)))
    until(lambda: shared_out(running) == fair())


def test_a_pair_is_made_on_any_processor(environment):
    with on_few(environment, WORKERS) as it:
        Api.over_http(it.url).create(kty="RSA", bits=2048)
        of_the_lane = [places(pid)[tuple(PROCESSORS)] for pid in workers_of(it.process.pid)]
    assert sorted(of_the_lane)[-1] == 1 or len(PROCESSORS) == 1


def test_what_cannot_be_shared_out_is_left_to_the_system(environment):
    workers = len(PROCESSORS) + 1
    with on_few(environment, workers) as it:
        found = [places(pid) for pid in workers_of(it.process.pid)]
    assert {place for each in found for place in each} == {tuple(PROCESSORS)}
