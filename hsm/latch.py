"""What the processes of one host agree on through files: who boots, and which PIN is wrong."""

import fcntl
import hashlib
import hmac
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_SALT_BYTES: Final = 16


@contextmanager
def file_lock(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold an advisory lock on ``path`` for one ``with`` block; death of the process frees it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
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

    def close(self, pin: str) -> None:
        """Remember ``pin`` as refused."""
        salt = os.urandom(_SALT_BYTES)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as latch:
            latch.write(salt + _hash(salt, pin))

    def is_closed(self, pin: str) -> bool:
        """Tell whether ``pin`` has been refused."""
        try:
            latch = self._path.read_bytes()
        except FileNotFoundError:
            return False
        salt, refused = latch[:_SALT_BYTES], latch[_SALT_BYTES:]
        return hmac.compare_digest(refused, _hash(salt, pin))

    def open(self) -> None:
        """Forget; a PIN has been accepted."""
        self._path.unlink(missing_ok=True)


def _hash(salt: bytes, pin: str) -> bytes:
    return hashlib.scrypt(pin.encode(), salt=salt, n=2**14, r=8, p=1)
