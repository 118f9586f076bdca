"""Whether an audit log is as it was written."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.audit.log import digest


@dataclass(kw_only=True)
class Report:
    """What ``verify`` found; ``broken`` says where the chain ends, if it does too early."""

    lines: int = 0
    torn: int = 0
    first: str | None = None
    last: str | None = None
    head: str | None = None
    is_head_met: bool = False
    broken: str | None = None


def verify(paths: Iterable[Path], head: str | None = None) -> Report:
    """Check that each line of ``paths``, the oldest first, holds the digest of the one before it.

    ``head`` is a digest that must be among them. A torn line, left by a killed process, is part of
    the chain: whatever is done to it shows in the line after it.
    """
    report = Report()
    for path, number, line in _lines(paths):
        if not _follows(report, line):
            report.broken = f"{path}: line {number} does not follow the line before it"
            return report
        report.is_head_met |= report.head == head
    return report


def _lines(paths: Iterable[Path]) -> Iterator[tuple[Path, int, bytes]]:
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield path, number, line.removesuffix(b"\n")


def _follows(report: Report, line: bytes) -> bool:
    """Add ``line`` to ``report``; tell whether it follows."""
    entry = _parsed(line)
    if entry is None:
        report.torn += 1
    elif report.head is not None and entry["prev"] != report.head:
        return False
    else:
        report.first = report.first or entry["time"]
        report.last = entry["time"]
    report.lines += 1
    report.head = digest(line)
    return True


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    is_entry = isinstance(entry, dict) and {"time", "prev"} <= entry.keys()
    return entry if is_entry else None
