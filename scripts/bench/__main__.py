"""Measure, and write docs/benchmarks: the figures, a report of ratios, and plots.

python -m scripts.bench [--short] [--profile] [--previous REF] [--out docs/benchmarks]
"""

import argparse
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from scripts.bench import machine, plots, previous, profile, rates, report, scale
from scripts.bench.points import POINTS
from scripts.throwaway import ROOT

_WORKERS: Final = 2
_PROFILED: Final = ("encrypt-64", "hs256", "rs256-2048")
_SHORT: Final = (
    *("encrypt-64", "hs256", "rs256-2048", "create-aes"),
    *("batch-encrypt-64", "batch-hs256", "batch-es256-sign", "batch-rs256-2048"),
)


class Effort(NamedTuple):
    """How much is measured."""

    points: tuple[str, ...]
    connections: tuple[int, ...]
    rounds: int
    keys: tuple[int, ...]
    profile_seconds: int


FULL: Final = Effort(
    points=tuple(point.name for point in POINTS),
    connections=(1, 4, 16, 64, 256),
    rounds=2,
    keys=(10, 1_000, 10_000),
    profile_seconds=5,
)
SHORT: Final = Effort(_SHORT, (1, 16), 1, (10, 200), 2)


def run(effort: Effort, *, with_profile: bool, before: previous.Previous | None) -> dict[str, Any]:
    """Return all figures."""
    named = {point.name: point for point in POINTS}
    plan = rates.Plan(
        points=[named[name] for name in effort.points],
        connections=effort.connections,
        rounds=effort.rounds,
        workers=_WORKERS,
        previous=before,
    )
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "workers": _WORKERS,
        "connections": [str(number) for number in effort.connections],
        "points": rates.measure(plan, _say),
    }
    if effort.keys:
        results["scale"] = scale.measure(
            effort.keys, rounds=5 * effort.rounds, workers=_WORKERS, say=_say
        )
    if with_profile:
        profiled = [named[name] for name in _PROFILED]
        results["profile"] = profile.measure(profiled, seconds=effort.profile_seconds, say=_say)
    return results


def write(results: dict[str, Any], directory: Path) -> None:
    """Write everything that is made of ``results``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (directory / "README.md").write_text(report.markdown(results), "utf-8")
    plots.draw(results, directory)


def _say(text: str) -> None:
    print(f"{time.strftime('%X')} {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a minute, for a first look")
    parser.add_argument("--profile", action="store_true", help="also say where the time goes")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--previous", metavar="REF", help="also measure the service as of REF")
    options = parser.parse_args()
    effort = SHORT if options.short else FULL
    with ExitStack() as stack:
        before = stack.enter_context(previous.built(options.previous)) if options.previous else None
        results = run(effort, with_profile=options.profile, before=before)
    if options.previous:
        results["machine"]["previous"] = options.previous
    write(results, options.out)


if __name__ == "__main__":
    main()
