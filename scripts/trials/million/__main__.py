"""Make keys that the registry keeps, by the hundred thousand, and see what they cost.

    python -m scripts.trials.million --keys 1000000 --url postgresql+psycopg://…/empty --out DIR

Without a URL the registry is SQLite. A service with few keys runs beside, and is asked in turn.
Prints what was seen with each bound, and writes it to ``DIR`` with plots. Exits with 1 if keys have
left objects on the token, or if one does not sign.

With ``--state DIR`` registry and token stay there, and only what is missing is made: with
``--only-make`` that is all; the same without it measures. It may be stopped at any time.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final

from scripts.bench import machine
from scripts.bench.processor import used_seconds
from scripts.bench.scale import resident_kib
from scripts.bench.unwrapping_rate import token
from scripts.throwaway import Server, server
from scripts.trials.million import report
from scripts.trials.million.kept import Kept
from scripts.trials.million.making import FEW, make
from scripts.trials.million.service import Service, beside, size_bytes

_AT_A_TIME: Final = 100
_ROUNDS: Final = 10

Settings = Mapping[str, str]
Results = dict[str, Any]


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--url", help="a database, at first an empty one; by default SQLite")
    parser.add_argument("--out", type=Path, help="where to write figures and plot")
    parser.add_argument("--state", type=Path, help="where registry and token are to stay")
    parser.add_argument("--only-make", action="store_true", help="measure another time")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the services
    with (
        tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory,
        beside(options.url) as other,
    ):
        few = Kept(Path(directory, "few"), other).settings
        kept = Kept(options.state or Path(directory, "many"), options.url)
        with server(few, workers=1) as running:
            beside_it = Service(running.url)
            beside_it.make(FEW)
            make(kept, beside_it, options.keys)
            results = {} if options.only_make else _measured(few, kept)
    if options.only_make:
        return 0
    print(report.text(results))
    if options.out:
        report.write(results, options.out)
    return 0 if results["objects"] <= report.MOST_OBJECTS else 1


def _measured(few_settings: Settings, kept: Kept) -> Results:
    made, kids = kept.made, kept.kids()
    with _booted(kept.settings, kids) as (running, many, seconds):
        used = {
            "machine": machine.describe(),
            "database": kept.url.partition(":")[0].partition("+")[0],
            "boot_seconds": seconds,
            "booted_kib": resident_kib(running),
            "cold": _cold(few_settings, running, many, len(kids)),
            "used_kib": resident_kib(running),
        }
    return {
        "keys": len(kids),
        "clients": made["clients"],
        "per_second": made["number"] / made["seconds"],
        "per_cpu_second": made["number"] / made["cpu_seconds"],
        "bytes_each": (size_bytes(kept.url) - made["bytes"]) / len(kids),
        "points": made["points"],
        **used,
        "objects": _objects(kept.state_dir),
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
    rounds = max(1, min(_ROUNDS, number // (2 * _AT_A_TIME) - 1))
    cold = iter(many.kids[FEW :: max(1, number // (2 * _AT_A_TIME * (rounds + 1)))])
    ways: dict[str, list[tuple[float, float]]] = {"single": [], "batch": [], "token": []}
    with token(few_settings) as use:
        use(_AT_A_TIME)
        for _ in range(rounds):
            for name, sign in (("single", _one_by_one), ("batch", Service.sign_with_all)):
                some = list(islice(cold, _AT_A_TIME))
                started, used = time.perf_counter(), used_seconds(running.process.pid)
                sign(many, some)
                seconds = time.perf_counter() - started
                cpu_seconds = used_seconds(running.process.pid) - used
                ways[name].append((seconds / len(some), cpu_seconds / len(some)))
            ways["token"].append(use(_AT_A_TIME))
    return {name: [median(each) for each in zip(*seen, strict=True)] for name, seen in ways.items()}


def _one_by_one(service: Service, kids: list[str]) -> None:
    for kid in kids:
        service.sign(kid)


def _objects(state_dir: Path) -> int:
    """Return how many objects SoftHSM keeps in files, beside the token itself."""
    return sum(path.name != "token.object" for path in state_dir.rglob("*.object"))


if __name__ == "__main__":
    sys.exit(main())
