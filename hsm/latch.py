"""What the processes of one host agree on through files: who boots, and which PIN is wrong."""

import fcntl
import hashlib
import hmac
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

_SALT_BYTES: Final = 16


@contextmanager
def file_lock(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold an advisory lock on ``path`` for one ``with`` block; death of the process frees it.

    Everybody queues at a turnstile: the kernel would let ever new shared holders pass by one who
    waits to be alone.
    """
    with ExitStack() as held:
        with _flock(path.with_name(f"{path.name}.turn"), fcntl.LOCK_EX):
            held.enter_context(_flock(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX))
        yield


@contextmanager
def _flock(path: Path, operation: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


class PinLatch:
    """Remembers, for all processes and restarts, a PIN that the token refused.

    Tokens lock after a few wrong PINs, some for good. So a refused PIN is never tried again until
    the PIN changes. Only a salted scrypt hash of it is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._refused: bytes | None = None

    def close(self, pin: str) -> None:
        """Remember ``pin`` as refused: here at once, and for all others if the disk permits."""
        salt = os.urandom(_SALT_BYTES)
        self._refused = salt + _hash(salt, pin)
        partial = self._path.with_name(f"{self._path.name}.new")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as latch:
            latch.write(self._refused)
        partial.replace(self._path)

    def is_closed(self, pin: str) -> bool:
        """Tell whether ``pin`` has been refused."""
        return any(
            hmac.compare_digest(refused[_SALT_BYTES:], _hash(refused[:_SALT_BYTES], pin))
            for refused in (self._refused, self._read())
            if refused
        )

    def open(self) -> None:
        """Forget; a PIN has been accepted."""
        self._refused = None
        self._path.unlink(missing_ok=True)

    def _read(self) -> bytes | None:
        return self._path.read_bytes() if self._path.exists() else None


def _hash(salt: bytes, pin: str) -> bytes:
    return hashlib.scrypt(pin.encode(), salt=salt, n=2**14, r=8, p=1)
