"""``jose-hsm doctor``: what is wrong with this installation, and what to do about it."""

import os
import sys
import textwrap
from collections import Counter
from typing import Final

import click

from app.config import Config
from app.operator.cli.command import configured
from app.operator.doctor import Check, Doctor, Result, workers
from app.terminal.output import as_json, print_json, print_table, spinner

_MARKS: Final = {Result.OK: "✓", Result.WARNING: "!", Result.FAILED: "✗", Result.SKIPPED: "-"}


@click.command()
@click.option("--quick", is_flag=True, help="Measure no rates.")
@as_json
@configured
def doctor(config: Config, *, quick: bool, as_json: bool) -> int:
    """Examine the installation and say what to do.

    Tries the PIN once at most. Exit status: 0 if nothing has failed, 1 if something has.
    """
    checks = []
    with spinner("") as show:
        examiner = Doctor(config, workers=workers(), is_quick=quick, begin=show)
        for check in examiner.checks():
            checks.append(check)
            _tell(check)
    worst = _worst(checks)
    if as_json:
        print_json({"result": worst, "steps": [check._asdict() for check in checks]})
    else:
        _print(checks)
    status = 1 if worst is Result.FAILED else 0
    if examiner.is_stuck:  # the interpreter must not be torn down around a call into the library
        sys.stdout.flush()
        os._exit(status)
    return status


def _tell(check: Check) -> None:
    """Print to stderr how a step ended."""
    line = f"{_MARKS[check.result]} {check.step}"
    plain = f"{check.step}: {check.result}"
    print(line if sys.stderr.isatty() else plain, file=sys.stderr, flush=True)


def _worst(checks: list[Check]) -> Result:
    results = {check.result for check in checks}
    return next(
        (result for result in (Result.FAILED, Result.WARNING) if result in results), Result.OK
    )


def _print(checks: list[Check]) -> None:
    print_table(("step", "result", "seen"), _rows(checks))
    for (advice, result, seen), steps in _advised(checks).items():
        print(f"\n{', '.join(steps)}: {result}: {seen}")
        print(textwrap.indent(textwrap.fill(advice, 96, break_long_words=False), "  "))
    counts = Counter(check.result for check in checks)
    print("\n" + ", ".join(f"{counts[result]} {result}" for result in Result if counts[result]))


def _advised(checks: list[Check]) -> dict[tuple[str, Result, str], list[str]]:
    """Return the steps that have the same advice for the same reason."""
    steps: dict[tuple[str, Result, str], list[str]] = {}
    for check in checks:
        if check.advice:
            steps.setdefault((check.advice, check.result, check.seen), []).append(check.step)
    return steps


def _rows(checks: list[Check]) -> list[tuple[str, Result, str]]:
    """Return a row for each step, but one for all of a kind that could not be taken."""
    rows = (
        (_kind(check.step) if check.symptom == "skipped" else check.step, check.result, check.seen)
        for check in checks
    )
    return list(dict.fromkeys(rows))


def _kind(step: str) -> str:
    kind, _, name = step.partition(" ")
    return f"{kind} (all)" if name else kind
