"""The file that all processes of a host append to."""

import fcntl
import hashlib
import json
import mmap
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from app.instants import now

_NONE: Final = -1
_HEX: Final = 64
BEGINNING: Final = _HEX * "0"
_TAIL_BYTES: Final = 8192
_encode: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def digest(line: bytes) -> str:
    """Return the SHA-256 of a line without its end, in hexadecimal."""
    return hashlib.sha256(line).hexdigest()


class AuditLog:
    """Appends JSON lines to ``path``; ``prev`` of each is the digest of the line before it.

    Beside it ``path``.lock is what processes take turns with, and holds the digest of the last
    line, so that the chain goes on when the file has been rotated away. A line that a killed
    process left unfinished is ended and stays in the chain as it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._turn = threading.Lock()
        self._lock_fd = self._fd = self._inode = self._size = _NONE
        self._start = b""
        self._head = BEGINNING
        self._kept: mmap.mmap | None = None  # the lock file

    def record(self, *, is_synced: bool = False, **members: Any) -> None:
        """Append a line with ``members`` and the time; raise ``OSError`` if it cannot be written.

        ``is_synced`` waits until it would survive a power cut.
        """
        self.record_all([members], is_synced=is_synced)

    def record_all(self, entries: Iterable[Mapping[str, Any]], *, is_synced: bool = False) -> None:
        """Append a line for each of ``entries``, all in one write."""
        with self._turn:
            lock_fd = self._lock()
            try:
                self._kept = self._kept or _mapped(lock_fd)
                self._catch_up(self._kept)
                self._append(entries)
                self._kept[:] = self._head.encode("ascii")
                synced_fd = os.dup(self._fd) if is_synced else _NONE
            finally:
                fcntl.flock(lock_fd, fcntl.LOCK_UN)
        if is_synced:  # after the turn: others need not wait for it
            try:
                os.fsync(synced_fd)
            finally:
                os.close(synced_fd)

    def _lock(self) -> int:
        if self._lock_fd == _NONE:
            self._lock_fd = _open(f"{self._path}.lock", os.O_RDWR)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        return self._lock_fd

    def _catch_up(self, kept: mmap.mmap) -> None:
        """Know the file as it is now, and its last line, if others have written or moved it."""
        try:
            found = os.stat(self._path)  # noqa: PTH116  # half the time of a Path's
            inode, size = found.st_ino, found.st_size
        except FileNotFoundError:
            inode = size = _NONE
        if self._fd == _NONE or inode != self._inode:
            size = self._reopen()
        if size == self._size and size:
            return
        self._size, self._start = size, b""
        if size:
            self._head, is_whole = _last(self._fd, size)
            self._start = b"" if is_whole else b"\n"
        else:
            self._head = kept[:].decode("ascii")

    def _reopen(self) -> int:
        if self._fd != _NONE:
            fd, self._fd = self._fd, _NONE
            os.close(fd)
        self._fd = _open(self._path, os.O_RDWR | os.O_APPEND)
        found = os.fstat(self._fd)
        self._inode, self._size = found.st_ino, _NONE
        return found.st_size

    def _append(self, entries: Iterable[Mapping[str, Any]]) -> None:
        head, lines, time = self._head, [], now()
        for members in entries:
            line = _encode({"time": time, **members, "prev": head}).encode("ascii")
            head = digest(line)
            lines.append(b"%b\n" % line)
        text = self._start + b"".join(lines)
        size, self._size = self._size, _NONE  # not known until all of it is written
        if os.write(self._fd, text) != len(text):
            raise OSError("the lines were not written whole")
        self._size, self._start = size + len(text), b""
        self._head = head


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _mapped(lock_fd: int) -> mmap.mmap:
    if os.fstat(lock_fd).st_size < _HEX:
        os.pwrite(lock_fd, BEGINNING.encode("ascii"), 0)
    return mmap.mmap(lock_fd, _HEX)


def _last(fd: int, size: int) -> tuple[str, bool]:
    """Return the digest of the last line of a file of ``size`` bytes, and whether it was ended."""
    wanted = _TAIL_BYTES
    while True:
        start = max(0, size - wanted)
        text = os.pread(fd, size - start, start)
        is_whole = text.endswith(b"\n")
        _, newline, last = text.removesuffix(b"\n").rpartition(b"\n")
        if newline or not start:
            return digest(last), is_whole
        wanted *= 2
