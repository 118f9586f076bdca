"""The file that all processes of a host append to."""

import fcntl
import hashlib
import mmap
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from app import compact_json
from app.audit.lines import entry_of, newest
from app.instants import now

_NONE: Final = -1
_HEX: Final = 64
BEGINNING: Final = _HEX * "0"
_TAIL_BYTES: Final = 8192

Entry = tuple[Mapping[str, Any], int | None]
"""The members of a line, which may be those of others, too, and which part of a request it is."""


def digest(line: bytes) -> str:
    """Return the SHA-256 of a line without its end, in hexadecimal."""
    return hashlib.sha256(line).hexdigest()


class AuditLog:
    """Appends JSON lines to ``path``; ``prev`` of each is the digest of the line before it.

    Beside it ``path``.lock is what processes take turns with, and holds the digest of the last
    line, so that the chain goes on when the file has been rotated away. If the file has no such
    line any more, a line ``audit.cut`` says so before the next one. A line that a killed process
    left unfinished is ended and stays in the chain as it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._lock_path = str(lock_of(path))
        self._turn = threading.Lock()
        self._lock_fd = self._lock_inode = _NONE
        self._fd = self._inode = self._size = _NONE
        self._start = b""
        self._head = BEGINNING
        self._kept: mmap.mmap | None = None  # the lock file

    def record(self, *, is_synced: bool = False, **members: Any) -> None:
        """Append a line with ``members`` and the time; raise ``OSError`` if it cannot be written.

        ``is_synced`` waits until it would survive a power cut.
        """
        self.record_all([(members, None)], is_synced=is_synced)

    def record_all(self, entries: Iterable[Entry], *, is_synced: bool = False) -> None:
        """Append a line for each of ``entries``, all in one write."""
        with self._turn:
            lock_fd = self._lock()
            try:
                self._kept = self._kept or _mapped(lock_fd, self._head)
                cut = self._catch_up(self._kept)
                self._append([*cut, *entries] if cut else entries)
                self._kept[:] = self._head.encode("ascii")
                synced_fd = os.dup(self._fd) if is_synced else _NONE
            finally:
                fcntl.flock(lock_fd, fcntl.LOCK_UN)
        if is_synced:  # after the turn: others need not wait for it
            try:
                os.fsync(synced_fd)
            finally:
                os.close(synced_fd)

    def has(self, since: datetime, **members: Any) -> bool:
        """Tell whether a line that was written at ``since`` or later has all ``members``.

        It would survive a power cut. Lines of files that were moved away are not looked at.
        """
        fd = _open(self._path, os.O_RDWR)
        try:
            is_there = any(members.items() <= entry.items() for entry in newest(fd, since))
            if is_there:
                os.fsync(fd)
            return is_there
        finally:
            os.close(fd)

    def last(self, number: int) -> list[dict[str, Any]]:
        """Return the last lines, so many if there are, the newest first; raise ``OSError``.

        Lines that a killed process has torn are left out, and so are files that were moved away.
        """
        fd = _open(self._path, os.O_RDWR)
        try:
            lines, _ = _tail(fd, os.fstat(fd).st_size, lines=number)
        finally:
            os.close(fd)
        return [entry for line in lines[: -number - 1 : -1] if (entry := entry_of(line))]

    def _lock(self) -> int:
        """Take the turn. Whoever replaces the lock must not split those who take turns.

        Nor must whoever empties it end them: to read what a mapping has lost of its file kills.
        """
        while True:
            if self._lock_fd == _NONE:
                self._lock_fd = _open(self._lock_path, os.O_RDWR)
                self._lock_inode = os.fstat(self._lock_fd).st_ino
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
            inode, size = _inode_and_size(self._lock_path)
            if inode == self._lock_inode:
                self._kept = self._kept if size >= _HEX else None
                return self._lock_fd
            fd, self._lock_fd, self._kept = self._lock_fd, _NONE, None
            os.close(fd)

    def _catch_up(self, kept: mmap.mmap) -> Sequence[Entry]:
        """Know the file as it is now, and its last line, if others have written or moved it.

        Returns what there is to be said of lines that are missing at its end.
        """
        inode, size = _inode_and_size(self._path)
        is_shorter = inode == self._inode and size < self._size
        if self._fd == _NONE or inode != self._inode:
            size = self._reopen()
        if size == self._size and size:
            return ()
        self._size, self._start = size, b""
        expected = kept[:].decode("ascii")
        if not size:
            self._head = expected
            return _cut(expected, BEGINNING) if is_shorter else ()
        self._head, is_whole = _last(self._fd, size)
        self._start = b"" if is_whole else b"\n"
        is_known = expected not in {BEGINNING, self._head}
        is_missing = is_known and not _holds(self._fd, size, expected)
        return _cut(expected, self._head) if is_missing else ()

    def _reopen(self) -> int:
        if self._fd != _NONE:
            fd, self._fd = self._fd, _NONE
            os.close(fd)
        self._fd = _open(self._path, os.O_RDWR | os.O_APPEND)
        found = os.fstat(self._fd)
        self._inode, self._size = found.st_ino, _NONE
        return found.st_size

    def _append(self, entries: Iterable[Entry]) -> None:
        head, lines, time = self._head, [], now()
        last, beginning = None, ""
        for members, part in entries:
            if members is not last:
                last, beginning = members, compact_json.line({"time": time, **members})[:-1]
            number = "" if part is None else f',"part":{part}'
            line = f'{beginning}{number},"prev":"{head}"}}'.encode("ascii")
            head = digest(line)
            lines.append(b"%b\n" % line)
        text = self._start + b"".join(lines)
        size, self._size = self._size, _NONE  # not known until all of it is written
        if os.write(self._fd, text) != len(text):
            raise OSError("the lines were not written whole")
        self._size, self._start = size + len(text), b""
        self._head = head


def lock_of(path: Path) -> Path:
    """Return the file that those who write to the log ``path`` take turns with."""
    return path.with_name(f"{path.name}.lock")


def kept_head(path: Path) -> str | None:
    """Return the digest of the last line of the log ``path`` as its lock has it, if there is one.

    What is written while somebody reads comes after that line.
    """
    try:
        kept = lock_of(path).read_bytes()[:_HEX]
    except OSError:
        return None
    return kept.decode("ascii", "replace") or None


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _inode_and_size(path: str) -> tuple[int, int]:
    """Return nothing of what cannot be looked at, for whatever reason: to open it says which."""
    try:
        found = os.stat(path)  # noqa: PTH116  # half the time of a Path's
    except OSError:
        return _NONE, _NONE
    return found.st_ino, found.st_size


def _mapped(lock_fd: int, head: str) -> mmap.mmap:
    """Return what the lock holds; a new one holds ``head``, the last that this process knows."""
    if os.fstat(lock_fd).st_size < _HEX:
        os.pwrite(lock_fd, head.encode("ascii"), 0)
    return mmap.mmap(lock_fd, _HEX)


def _last(fd: int, size: int) -> tuple[str, bool]:
    """Return the digest of the last line of a file of ``size`` bytes, and whether it was ended."""
    (*_, last), is_whole = _tail(fd, size, lines=1)
    return digest(last), is_whole


def _tail(fd: int, size: int, *, lines: int) -> tuple[list[bytes], bool]:
    """Return so many last lines or more, if there are, and whether the last one was ended."""
    wanted = _TAIL_BYTES
    while True:
        start = max(0, size - wanted)
        text = os.pread(fd, size - start, start)
        found = text.removesuffix(b"\n").split(b"\n")
        if not start:
            return found, text.endswith(b"\n")
        if len(found) > lines:
            return found[1:], text.endswith(b"\n")
        wanted *= 2


def _holds(fd: int, size: int, head: str) -> bool:
    """Tell whether the line with that digest is there, before others or a torn one.

    That is how it is if somebody was killed before the lock had the digest of what he wrote.
    """
    lines, _ = _tail(fd, size, lines=2)
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as text:
        is_followed = text.rfind(b'"prev":"%b"' % head.encode("ascii")) >= 0
    return is_followed or head in map(digest, lines[-2:-1])


def _cut(expected: str, found: str) -> Sequence[Entry]:
    return (({"endpoint": "audit.cut", "expected": expected, "found": found}, None),)
