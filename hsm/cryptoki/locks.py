"""What the processes of one host agree on through files: who boots, and which PIN is wrong."""

import fcntl
import hashlib
import hmac
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from hsm.errors import TokenUnavailable

logger = logging.getLogger(__name__)

_SALT_BYTES: Final = 16
_POLL_SECONDS: Final = 0.01


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
        raise TokenUnavailable("the state directory cannot be used") from error
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
                raise TokenUnavailable("another process looks after the keys") from None
            time.sleep(_POLL_SECONDS)
        else:
            return


class PinLatch:
    """Remembers, for all processes and restarts, a PIN that a token refused.

    Tokens lock after a few wrong PINs, some for good. So a refused PIN is never tried again on the
    same token until it changes, or somebody removes the file. Only a salted scrypt hash of PIN and
    serial number is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._refused: bytes | None = None

    def close(self, serial: bytes, pin: str) -> None:
        """Remember ``pin`` as refused: for all processes or, if the disk forbids, for this one."""
        salt = os.urandom(_SALT_BYTES)
        refused = salt + _hash(salt, serial, pin)
        partial = self._path.with_name(f"{self._path.name}.new")
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as latch:
                latch.write(refused)
            partial.replace(self._path)
        except OSError:
            logger.exception("other processes cannot be told that the PIN is wrong")
            self._refused = refused

    def is_closed(self, serial: bytes, pin: str) -> bool:
        """Tell whether ``pin`` has been refused by the token of that serial number."""
        return any(
            hmac.compare_digest(refused[_SALT_BYTES:], _hash(refused[:_SALT_BYTES], serial, pin))
            for refused in (self._refused, self._read())
            if refused
        )

    def open(self) -> None:
        """Forget; a PIN has been accepted."""
        self._refused = None
        self._path.unlink(missing_ok=True)

    def _read(self) -> bytes | None:
        return self._path.read_bytes() if self._path.exists() else None


def _hash(salt: bytes, serial: bytes, pin: str) -> bytes:
    return hashlib.scrypt(serial + b"\0" + pin.encode(), salt=salt, n=2**14, r=8, p=1)
