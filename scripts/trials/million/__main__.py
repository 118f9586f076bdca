"""Make keys that the registry keeps, by the hundred thousand, and see what they cost.

    python -m scripts.trials.million --keys 1000000 --url postgresql+psycopg://…/empty --out DIR

Without a URL the registry is SQLite. A service with few keys runs beside, and is asked in turn.
Prints what was seen with each bound, and writes it to ``DIR`` with plots. Exits with 1 if keys have
left objects on the token, or if one does not sign.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final

from app.config import Config
from app.registry import migrate
from app.terminal.output import spinner
from scripts.bench import machine
from scripts.bench.processor import used_seconds
from scripts.bench.scale import resident_kib
from scripts.bench.unwrapping_rate import token
from scripts.throwaway import Server, create_kek, make_token, server
from scripts.trials.million import report
from scripts.trials.million.service import Service, beside, medians, size_bytes

AT_A_TIME: Final = 100
FEW: Final = 10
PAGE: Final = 50
_TIMES: Final = 400
_ROUNDS: Final = 10

Settings = dict[str, str]
Results = dict[str, Any]


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--url", help="an empty database; by default SQLite")
    parser.add_argument("--out", type=Path, help="where to write figures and plot")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory,
        beside(options.url) as other,
    ):
        few = _settings(Path(directory, "few"), other)
        many = _settings(Path(directory, "many"), options.url)
        results = _run(few, many, options.keys)
    print(report.text(results))
    if options.out:
        report.write(results, options.out)
    return 0 if results["objects"] <= report.MOST_OBJECTS else 1


def _settings(state_dir: Path, url: str | None) -> Settings:
    settings = make_token(state_dir) | {"JOSE_HSM_JWKS_TAGGING": "0"}
    if url:
        settings["JOSE_HSM_DATABASE_URL"] = url
        migrate(url)
    create_kek(settings)
    return settings


def _run(few_settings: Settings, settings: Settings, number: int) -> Results:
    database = Config.from_env(settings).registry_url
    with server(few_settings, workers=1) as beside_it:
        few = Service(beside_it.url)
        few.make(FEW)
        with server(settings, workers=1) as running:
            kids, made = _fill(running, few, number, database)
        with _booted(settings, kids) as (running, many, seconds):
            used = {
                "machine": machine.describe(),
                "database": database.partition(":")[0].partition("+")[0],
                "boot_seconds": seconds,
                "booted_kib": resident_kib(running),
                "cold": _cold(few_settings, running, many, number),
                "used_kib": resident_kib(running),
            }
    objects = _objects(Path(settings["JOSE_HSM_STATE_DIR"]))
    return {"keys": number, **made, **used, "objects": objects}


def _fill(running: Server, few: Service, number: int, database: str) -> tuple[list[str], Results]:
    """Make the keys; compare both services each time there are ten times as many."""
    many = Service(running.url)
    many.make(min(FEW, number))
    empty_bytes, cpu_seconds, seconds, points = size_bytes(database), 0.0, 0.0, []
    with spinner("making keys") as show:
        for goal in _goals(number):
            started, used = time.monotonic(), used_seconds(running.process.pid)
            while (left := goal - len(many.kids)) > 0:
                many.make(min(AT_A_TIME, left))
                show(f"{len(many.kids):,} of {number:,} keys")
            seconds += time.monotonic() - started
            cpu_seconds += used_seconds(running.process.pid) - used
            points.append({"keys": goal, **_compared(few, many)})
    return many.kids, {
        "per_second": number / seconds,
        "per_cpu_second": number / cpu_seconds,
        "bytes_each": (size_bytes(database) - empty_bytes) / number,
        "points": points,
    }


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
        "page": medians([many], lambda one, _: one.list(PAGE), _TIMES // 4)[0],
    }


@contextmanager
def _booted(settings: Settings, kids: list[str]) -> Iterator[tuple[Server, Service, float]]:
    """Start a service that has the keys; give how many seconds it takes until it signs."""
    started = time.monotonic()
    with server(settings, workers=1) as running:
        many = Service(running.url, kids)
        many.sign(kids[0])
        yield running, many, time.monotonic() - started


def _cold(few_settings: Settings, running: Server, many: Service, number: int) -> Results:
    """Return the seconds of a signature with a key that is unwrapped for it.

    One in a request, one of a batch, and the token's own; of the clock and of the processor.
    """
    rounds = max(1, min(_ROUNDS, number // (2 * AT_A_TIME) - 1))
    cold = iter(many.kids[FEW :: max(1, number // (2 * AT_A_TIME * (rounds + 1)))])
    ways: dict[str, list[tuple[float, float]]] = {"single": [], "batch": [], "token": []}
    with token(few_settings) as use:
        use(AT_A_TIME)
        for _ in range(rounds):
            for name, sign in (("single", _one_by_one), ("batch", Service.sign_with_all)):
                some = list(islice(cold, AT_A_TIME))
                started, used = time.perf_counter(), used_seconds(running.process.pid)
                sign(many, some)
                seconds = time.perf_counter() - started
                cpu_seconds = used_seconds(running.process.pid) - used
                ways[name].append((seconds / len(some), cpu_seconds / len(some)))
            ways["token"].append(use(AT_A_TIME))
    return {name: [median(each) for each in zip(*seen, strict=True)] for name, seen in ways.items()}


def _one_by_one(service: Service, kids: list[str]) -> None:
    for kid in kids:
        service.sign(kid)


def _objects(state_dir: Path) -> int:
    """Return how many objects SoftHSM keeps in files, beside the token itself."""
    return sum(path.name != "token.object" for path in state_dir.rglob("*.object"))


if __name__ == "__main__":
    sys.exit(main())
