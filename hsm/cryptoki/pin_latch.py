"""Remembers a PIN that is wrong, for all processes of a host."""

import hashlib
import hmac
import logging
import os
from pathlib import Path
from typing import Final

from hsm.files import replace

logger = logging.getLogger(__name__)

_SALT_BYTES: Final = 16


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
        try:
            replace(self._path, refused, synced=True)  # a power cut must not cost another try
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
