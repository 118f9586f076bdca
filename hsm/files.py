"""Files that several processes share: locks, and contents that are there whole or not at all."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Final

from hsm.errors import Cause, TokenUnavailable

_POLL_SECONDS: Final = 0.01


def replace(path: Path, data: bytes, *, mode: int = 0o600, synced: bool) -> None:
    """Write ``data`` to ``path``, all of it or nothing; see ``replacing``."""
    with replacing(path, mode=mode, synced=synced) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, *, mode: int = 0o600, synced: bool) -> Iterator[IO[bytes]]:
    """Give a new file for one ``with`` block, which at its end takes the place of ``path``.

    Whoever reads meanwhile finds the old file whole. If the block raises, nothing has changed.
    ``synced`` has the new one on the disk before this returns, so that a power cut leaves one of
    the two. Raises ``OSError``.
    """
    with NamedTemporaryFile(prefix=f"{path.name}.new.", dir=path.parent, delete=False) as file:
        partial = Path(file.name)
        try:
            os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            if synced:
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    if synced:
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Have the names in a directory on the disk: a new name is no part of the file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def file_lock(
    path: Path, *, shared: bool = False, wait_seconds: float | None = None
) -> Iterator[None]:
    """Hold an advisory lock on ``path`` for one ``with`` block; death of the process frees it.

    Everybody queues at a turnstile: the kernel would let ever new shared holders pass by one who
    waits to be alone. Raises ``TokenUnavailable`` if there can be no such file, or if the wait is
    over; without ``wait_seconds`` it never is.
    """
    deadline = None if wait_seconds is None else time.monotonic() + wait_seconds
    with ExitStack() as held:
        with _flock(path.with_name(f"{path.name}.turn"), fcntl.LOCK_EX, deadline):
            operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            held.enter_context(_flock(path, operation, deadline))
        yield


@contextmanager
def _flock(path: Path, operation: int, deadline: float | None) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = f"the state directory cannot be used: {error.strerror}"
        raise TokenUnavailable(reason) from error
    try:
        if deadline is None:
            fcntl.flock(descriptor, operation)
        else:
            _flock_until(deadline, descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _flock_until(deadline: float, descriptor: int, operation: int) -> None:
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                reason = "another process looks after the keys"
                raise TokenUnavailable(reason, cause=Cause.BUSY) from None
            time.sleep(_POLL_SECONDS)
        else:
            return
