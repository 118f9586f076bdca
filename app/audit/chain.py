"""Whether an audit log is as it was written."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.audit.lines import entry_of, reading
from app.audit.log import BEGINNING, digest, kept_head


@dataclass(kw_only=True)
class Report:
    """What ``verify`` found; ``broken`` says what is not as it was written, and where.

    ``is_end_known`` says whether there was a lock to compare the end with.
    """

    lines: int = 0
    torn: int = 0
    first: str | None = None
    last: str | None = None
    head: str
    is_head_met: bool = False
    is_end_known: bool = False
    broken: str | None = None


def verify(paths: Sequence[Path], head: str | None = None, *, after: str = BEGINNING) -> Report:
    """Check that each line of ``paths``, the oldest first, holds the digest of the one before it.

    The first follows the line with the digest ``after``. ``head`` is a digest that must be among
    them, and so is that of the last line as the lock of the newest file has it. A torn line, left
    by a killed process, is part of the chain: whatever is done to it shows in the line after it.
    """
    kept = kept_head(paths[-1])  # before the lines, which may become more
    report = Report(head=after, is_end_known=kept is not None)
    is_kept_met = kept in {None, after}
    for path, number, line in _lines(paths):
        if not _follows(report, line):
            report.broken = _not_following(path, number, is_first=not report.lines)
            return report
        report.is_head_met |= report.head == head
        is_kept_met |= report.head == kept
    if report.lines and report.lines == report.torn:
        report.broken = f"{paths[-1]}: there is no line that can be read"
    elif not is_kept_met:
        report.broken = f"{paths[-1]}: the last line that was written, {kept}, is missing"
    return report


def _not_following(path: Path, number: int, *, is_first: bool) -> str:
    if is_first:
        return f"{path}: line {number} follows a line that is in none of the files"
    return f"{path}: line {number} does not follow the line before it"


def _lines(paths: Iterable[Path]) -> Iterator[tuple[Path, int, bytes]]:
    for path in paths:
        with reading(path) as lines:
            for number, line in enumerate(lines, 1):
                yield path, number, line.removesuffix(b"\n")


def _follows(report: Report, line: bytes) -> bool:
    """Add ``line`` to ``report``; tell whether it follows."""
    entry = entry_of(line)
    if entry is None or "prev" not in entry:
        report.torn += 1
    elif entry["prev"] != report.head:
        return False
    else:
        report.first = report.first or entry["time"]
        report.last = entry["time"]
    report.lines += 1
    report.head = digest(line)
    return True
