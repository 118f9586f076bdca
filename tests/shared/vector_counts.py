"""How many cases of each vector file a run has been through, printed at its end.

A test says what it did with ``count``; it travels as a user property of its report, so that it
arrives from the workers of pytest-xdist too. Registered by ``pytest_plugins`` in ``conftest``.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

PROPERTY = "vectors"

RecordProperty = Callable[[str, object], None]


def count(
    record_property: RecordProperty,
    file: str,
    run: int,
    left_out: Mapping[str, int] | None = None,
) -> None:
    """Say that ``run`` cases of ``file`` were run, and by reason how many were not."""
    record_property(PROPERTY, [file, run, dict(left_out or {})])


def lines(reports: list[Any]) -> list[str]:
    """Return one line for each file that the passed tests have counted."""
    run: Counter[str] = Counter()
    left_out: dict[str, Counter[str]] = {}
    for report in reports:
        for name, value in report.user_properties:
            if name == PROPERTY:
                file, cases, reasons = value
                run[file] += cases
                left_out.setdefault(file, Counter()).update(reasons)
    return [f"vectors: {file} {run[file]} run{_reasons(left_out[file])}" for file in sorted(run)]


def _reasons(left_out: Mapping[str, int]) -> str:
    return "".join(f", {cases} left out ({why})" for why, cases in left_out.items() if cases)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in lines(terminalreporter.stats.get("passed", [])):
        terminalreporter.write_line(line)
