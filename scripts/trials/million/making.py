"""Keys are made, with a bar that shows how far, and services compared as they become more."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress

from scripts.bench.processor import used_seconds
from scripts.throwaway import Server, server
from scripts.trials.million.kept import Kept
from scripts.trials.million.service import Service, medians, size_bytes

FEW: Final = 10
_AT_A_TIME: Final = 100
_PAGE: Final = 50
_TIMES: Final = 400
_LINES: Final = 100

Results = dict[str, Any]


def make(kept: Kept, few: Service, number: int) -> None:
    """Make what is missing to ``number``; compare both services at each power of ten, and there."""
    with server(kept.settings, workers=1) as running, _progress(number) as show:
        many = Service(running.url, kept.kids())
        if not kept.made:
            many.make(FEW)
            kept.made = {"bytes": size_bytes(kept.url), "number": 0, "points": []}
            kept.made |= {"seconds": 0.0, "cpu_seconds": 0.0}
        for goal in _goals(number):
            if len(many.kids) > goal:
                continue
            while (left := goal - len(many.kids)) > 0:
                _make_some(kept.made, running, many, min(_AT_A_TIME, left))
                kept.save()
                show(len(many.kids))
            before = [point for point in kept.made["points"] if point["keys"] < goal]
            kept.made["points"] = [*before, {"keys": goal, **_compared(few, many)}]
            kept.save()


def _make_some(made: Results, running: Server, many: Service, count: int) -> None:
    started, used = time.monotonic(), used_seconds(running.process.pid)
    many.make(count)
    made["number"] += count
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
