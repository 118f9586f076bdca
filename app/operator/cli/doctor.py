"""``jose-hsm doctor``: what is wrong with this installation, and what to do about it."""

import argparse
import os
import sys
import textwrap
from collections import Counter
from typing import Any, Final

from app.config import Config
from app.operator.cli.service import print_json, print_table
from app.operator.doctor import Check, Doctor, Result, workers

_MARKS: Final = {Result.OK: "✓", Result.WARNING: "!", Result.FAILED: "✗", Result.SKIPPED: "-"}


def add_to(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser(
        "doctor",
        help="examine the installation and say what to do; tries the PIN once at most",
        description="Exit status: 0 if nothing has failed, 1 if something has.",
    )
    command.add_argument("--quick", action="store_true", help="measure no rates")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(command=_examine)


def _examine(config: Config, options: argparse.Namespace) -> int:
    progress = _Progress()
    doctor = Doctor(config, workers=workers(), is_quick=options.quick, begin=progress.begin)
    checks = []
    for check in doctor.checks():
        checks.append(check)
        progress.end(check)
    worst = _worst(checks)
    if options.json:
        print_json({"result": worst, "steps": [check._asdict() for check in checks]})
    else:
        _print(checks)
    status = 1 if worst is Result.FAILED else 0
    if doctor.is_stuck:  # the interpreter must not be torn down around a call into the library
        sys.stdout.flush()
        os._exit(status)
    return status


class _Progress:
    """Prints a line for each step to stderr; on a terminal also for the one under way."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()

    def begin(self, step: str) -> None:
        """Show what is looked at."""
        if self._is_terminal:
            print(f"… {step}", end="\r", file=sys.stderr, flush=True)

    def end(self, check: Check) -> None:
        """Show how it ended."""
        line = f"{_MARKS[check.result]} {check.step}"
        plain = f"{check.step}: {check.result}"
        print(line if self._is_terminal else plain, file=sys.stderr, flush=True)


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
