"""The lines of an audit log."""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

_GZIP: Final = b"\x1f\x8b"
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


@contextmanager
def reading(path: Path) -> Iterator[Iterable[bytes]]:
    """Give the lines of a file for one ``with`` block, also of one that gzip has compressed.

    Raises ``OSError``, also for one that is compressed and damaged.
    """
    with path.open("rb") as file:
        is_compressed = file.peek(len(_GZIP)).startswith(_GZIP)
        yield _decompressed(path, gzip.GzipFile(fileobj=file)) if is_compressed else file


def _decompressed(path: Path, file: gzip.GzipFile) -> Iterator[bytes]:
    try:
        yield from file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise OSError(f"{path}: {error}") from error


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
