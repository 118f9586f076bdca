"""Lines on stdout, written by a thread of their own: a reader that stops must not stop us."""

import atexit
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from app.observability.journal import PREFIX_BYTES, priorities_of

MOST_LINE_BYTES: Final = select.PIPE_BUF - PREFIX_BYTES
_MOST_WAITING: Final = 10_000
_GATHER_SECONDS: Final = 0.05
_FLUSH_SECONDS: Final = 1.0
_STUCK_SECONDS: Final = 1.0


class Stream:
    """A bounded queue of lines before the file descriptor ``fd``.

    Its thread is no ``Periodic``, because it sleeps until there is a line.

    Lines are written in batches that a pipe takes whole (POSIX write, PIPE_BUF), so that those of
    several processes never mix. Lines that find the queue full, or no reader, are dropped, and
    ``dropped`` is called with their number. Where the journal of systemd is the reader, each line
    begins with its priority.
    """

    def __init__(self, fd: int, *, dropped: Callable[[int], None] = lambda _number: None) -> None:
        self._fd = fd
        self._dropped = dropped
        self._priorities = priorities_of(fd)
        self._waiting: deque[bytes] = deque()
        self._is_filled = threading.Event()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._write_on, name="stdout", daemon=True)

    def start(self) -> None:
        """Begin to write. Call after fork, never before."""
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Write what waits, for a short time at most."""
        atexit.unregister(self.stop)
        self._is_stopping.set()
        self._is_filled.set()
        self._thread.join(_FLUSH_SECONDS)

    def put(self, line: str, level: str = "info") -> None:
        """Have ``line``, ASCII without its end, written soon; never wait."""
        if len(self._waiting) >= _MOST_WAITING:
            self._dropped(1)
            return
        text = line.encode("ascii", "backslashreplace") + b"\n"
        self._waiting.append(self._priorities.get(level, b"") + text)
        if not self._is_filled.is_set():
            self._is_filled.set()

    def _write_on(self) -> None:
        while not (self._is_stopping.is_set() and not self._waiting):
            self._is_filled.wait()
            self._is_stopping.wait(_GATHER_SECONDS)  # one write for many lines
            self._is_filled.clear()
            while self._waiting:
                self._write(self._batch())

    def _batch(self) -> list[bytes]:
        lines = [self._waiting.popleft()]
        size = len(lines[0])
        while self._waiting and size + len(self._waiting[0]) <= MOST_LINE_BYTES:
            lines.append(self._waiting.popleft())
            size += len(lines[-1])
        return lines

    def _write(self, lines: list[bytes]) -> None:
        rest = b"".join(lines)
        try:
            while rest:
                rest = rest[self._write_some(rest) :]
        except OSError:  # no reader, no room
            self._dropped(len(lines))

    def _write_some(self, text: bytes) -> int:
        try:
            return os.write(self._fd, text)
        except BlockingIOError:  # somebody else has made it so
            deadline = time.monotonic() + _STUCK_SECONDS
            if not select.select([], [self._fd], [], max(0, deadline - time.monotonic()))[1]:
                raise
            return 0
