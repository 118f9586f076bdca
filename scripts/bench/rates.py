"""Throughput, latency and processor time, in slices that take turns.

Those of the token, a bare view, the service and, if wanted, the service as it was before: what else
the machine does hits all alike.
"""

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from scripts.bench import bare
from scripts.bench.keys import registry_of
from scripts.bench.load import Load, Metrics, Slice
from scripts.bench.points import PREFIX, Client, Point
from scripts.bench.previous import Previous
from scripts.bench.processor import used_seconds
from scripts.bench.token_rate import TokenRate, token_rate
from scripts.throwaway import Server, make_token, server

_TOKEN_SECONDS: Final = 1.0
_LABELS: Final = ("bare", "previous", "service")


class Plan(NamedTuple):
    """How long it may take: how often each slice is repeated, and at which concurrencies."""

    points: Sequence[Point]
    connections: Sequence[int]
    rounds: int
    workers: int
    token_seconds: float = _TOKEN_SECONDS
    previous: Previous | None = None


class Subject(NamedTuple):
    """What load is sent to for one point, and how to remove what came of it."""

    load: Load
    clean: Callable[[], None]
    seconds: int


class Subjects(NamedTuple):
    """All that is measured of one point."""

    point: Point
    token: TokenRate
    others: dict[str, Subject]


def measure(plan: Plan, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return one entry for each point: the token's rate, and the figures by connections."""
    slices: dict[tuple[str, str, int], list[Slice]] = defaultdict(list)
    token: dict[str, list[float]] = defaultdict(list)
    with _subjects(plan) as subjects:
        for each in subjects:
            say(f"warming up: {each.point.title}")
            _warm_up(each, max(plan.connections), plan.token_seconds)
        for number in range(1, plan.rounds + 1):
            for each in subjects:
                name = each.point.name
                say(f"round {number} of {plan.rounds}: {each.point.title}")
                token[name].append(each.token.measure(name, plan.token_seconds))
                for connections in plan.connections:
                    for label, subject in each.others.items():
                        one = subject.load.run(connections, subject.seconds)
                        subject.clean()
                        slices[name, label, connections].append(one)
    return [
        {
            "name": point.name,
            "title": point.title,
            "token_per_second": sum(token[point.name]) / plan.rounds,
            **{
                label: {
                    str(connections): Metrics.of(slices[point.name, label, connections])._asdict()
                    for connections in plan.connections
                }
                for label in _LABELS
                if (point.name, label, plan.connections[0]) in slices
            },
        }
        for point in plan.points
    ]


def _warm_up(subjects: Subjects, connections: int, seconds: float) -> None:
    subjects.token.measure(subjects.point.name, min(seconds, 0.1))
    for subject in subjects.others.values():
        subject.load.run(connections, 1)
        subject.clean()


@contextmanager
def _subjects(plan: Plan) -> Iterator[list[Subjects]]:
    """Serve and prepare all of them for one ``with`` block."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jose-hsm-")))
        settings = make_token(root / "service")
        service = stack.enter_context(server(settings, workers=plan.workers))
        client = Client(service.url)
        bodies = [point.body(client) for point in plan.points]
        answers = [
            client.post(point.path, body) for point, body in zip(plan.points, bodies, strict=True)
        ]
        (root / "answers.json").write_text(json.dumps(answers), "utf-8")
        beside = stack.enter_context(
            server(
                settings | {bare.ANSWERS: str(root / "answers.json")},
                workers=plan.workers,
                configuration="scripts/bench/stock.py",
                application=f"{bare.__name__}:create_app()",
            )
        )
        token = stack.enter_context(token_rate(make_token(root / "token"), plan.workers))
        clean = _cleaner(client, settings)
        before = _previous(stack, root / "previous", plan)
        yield [
            Subjects(
                point,
                token,
                {
                    "bare": Subject(_load(beside, f"/{number}", body), _nothing, 1),
                    **before[number],
                    "service": Subject(
                        _load(service, PREFIX + point.path, body),
                        clean if point.creates else _nothing,
                        point.seconds,
                    ),
                },
            )
            for number, (point, body) in enumerate(zip(plan.points, bodies, strict=True))
        ]


def _previous(stack: ExitStack, state_dir: Path, plan: Plan) -> list[dict[str, Subject]]:
    """Serve the version before, on a token of its own; what makes keys is not asked of it."""
    if plan.previous is None:
        return [{} for _ in plan.points]
    settings = make_token(state_dir, migrate=plan.previous.migrate)
    running = stack.enter_context(server(settings, workers=plan.workers, start=plan.previous.start))
    client = Client(running.url)
    return [
        {}
        if point.creates
        else {
            "previous": Subject(
                _load(running, PREFIX + point.path, point.body(client)), _nothing, point.seconds
            )
        }
        for point in plan.points
    ]


def _load(running: Server, path: str, body: Any) -> Load:
    return Load(running.url + path, [body], partial(used_seconds, running.process.pid))


def _cleaner(client: Client, settings: dict[str, str]) -> Callable[[], None]:
    """Return what destroys every key that is not there now."""
    registry = registry_of(settings)
    kept = registry.specs().keys()

    def clean() -> None:
        # wrk hangs up at the end, and what it had asked for last is still being made.
        while registry.unfinished(here_before=(now := datetime.now(UTC)), before=now):
            time.sleep(0.05)
        for kid in registry.specs().keys() - kept:
            client.destroy(kid)

    return clean


def _nothing() -> None:
    """Leave everything: nothing was made."""
