"""The lines of an audit log."""

import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

_BLOCK_BYTES: Final = 65_536
_RESOLUTION: Final = timedelta(milliseconds=1)
"""How much earlier than it was written the time of a line may be."""


def entry_of(line: bytes) -> dict[str, Any] | None:
    """Return the members of a line, or ``None`` for one that a killed process has torn.

    So is one that nobody here has written, however deep it is, or without the instant.
    """
    try:
        entry = json.loads(line)
        is_ours = datetime.fromisoformat(entry["time"]).tzinfo is not None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return entry if is_ours else None


def newest(fd: int, since: datetime) -> Iterator[dict[str, Any]]:
    """Give the lines of a file that were written at ``since`` or later, the last one first."""
    for entry in filter(None, map(entry_of, _from_the_end(fd))):
        if datetime.fromisoformat(entry["time"]) < since - _RESOLUTION:
            return
        yield entry


def _from_the_end(fd: int) -> Iterator[bytes]:
    end, first = os.fstat(fd).st_size, b""
    while end:
        start = max(0, end - _BLOCK_BYTES)
        first, *lines = (os.pread(fd, end - start, start) + first).split(b"\n")
        yield from reversed(lines)
        end = start
    yield first
