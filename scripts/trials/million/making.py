"""Keys are made, with a bar that shows how far, and services compared as they become more."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress

from scripts.bench.processor import used_seconds
from scripts.throwaway import Server, connected_workers, server
from scripts.trials.million.kept import Kept
from scripts.trials.million.service import Service, medians, size_bytes

FEW: Final = 10
_AT_A_TIME: Final = 100
_BETWEEN_SAVES: Final = 1_000
_CLIENTS: Final = os.cpu_count() or 1
_PAGE: Final = 50
_TIMES: Final = 400
_LINES: Final = 100

Results = dict[str, Any]


def make(kept: Kept, few: Service, number: int) -> None:
    """Make what is missing to ``number``; compare both services at each power of ten, and there.

    Each processor has a worker and a client of it to make keys; compared is one worker.
    """
    if not kept.made:
        _begin(kept)
    with _progress(number) as show:
        for goal in _goals(number):
            there = len(kept.kids())
            if there > goal:
                continue
            if there < goal:
                _make_up_to(kept, goal, show)
            kept.settle()
            with server(kept.settings, workers=1) as running:
                compared = _compared(few, Service(running.url, kept.kids()))
            before = [point for point in kept.made["points"] if point["keys"] < goal]
            kept.made["points"] = [*before, {"keys": goal, **compared}]
            kept.save()


def _begin(kept: Kept) -> None:
    """Make the first keys, by one worker: several would each write on the token whose it is."""
    with server(kept.settings, workers=1) as running:
        Service(running.url).make(FEW)
    kept.made = {"bytes": size_bytes(kept.url), "clients": _CLIENTS, "points": []}
    kept.made |= {"number": 0, "seconds": 0.0, "cpu_seconds": 0.0}


def _make_up_to(kept: Kept, goal: int, show: Callable[[int], None]) -> None:
    with (
        server(kept.settings, workers=_CLIENTS) as running,
        ThreadPoolExecutor(_CLIENTS) as threads,
    ):
        clients = [Service(running.url) for _ in range(_CLIENTS)]
        while connected_workers(running.url) < _CLIENTS:
            time.sleep(0.05)
        there = len(kept.kids())
        while there < goal:
            shares = _shares(min(goal - there, _BETWEEN_SAVES * _CLIENTS))
            with _counted(kept.made, running, sum(shares)):
                list(threads.map(_make, clients, shares))
            kept.save()
            there += sum(shares)
            show(there)


def _shares(count: int) -> list[int]:
    """Return how many keys each client is to make."""
    return [len(range(client, count, _CLIENTS)) for client in range(_CLIENTS)]


def _make(client: Service, count: int) -> None:
    for made in range(0, count, _AT_A_TIME):
        client.make(min(_AT_A_TIME, count - made))


@contextmanager
def _counted(made: Results, running: Server, number: int) -> Iterator[None]:
    """Add the keys that are made in one ``with`` block, and what they take."""
    started, used = time.monotonic(), used_seconds(running.process.pid)
    yield
    made["number"] += number
    made["seconds"] += time.monotonic() - started
    made["cpu_seconds"] += used_seconds(running.process.pid) - used


def _goals(number: int) -> list[int]:
    goals = [10**power for power in range(3, 9) if 10**power < number]
    return [*goals, number]


def _compared(few: Service, many: Service) -> Results:
    """Return for each kind of request the seconds with few keys, and with all that there are."""
    both = few, many
    for service in both:
        for kid in service.kids[:FEW]:
            service.sign(kid)
    return {
        "sign": medians(both, lambda one, number: one.sign(one.kids[number % FEW]), _TIMES),
        "list": medians(both, lambda one, _: one.list(FEW), _TIMES // 4),
        "status": medians(both, lambda one, _: one.show_status(), _TIMES // 10),
        "page": medians([many], lambda one, _: one.list(_PAGE), _TIMES // 4)[0],
    }


@contextmanager
def _progress(number: int) -> Iterator[Callable[[int], None]]:
    """Show how many keys there are: a bar on a terminal, else a line for each hundredth."""
    if not sys.stderr.isatty():
        shown: set[int] = set()
        yield lambda there: _say(there, number, shown)
        return
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("making keys", total=number)
        yield lambda there: bar.update(task, completed=there)


def _say(there: int, number: int, shown: set[int]) -> None:
    hundredth = there * _LINES // number
    if hundredth not in shown:
        shown.add(hundredth)
        print(f"{there:,} of {number:,} keys", file=sys.stderr, flush=True)
