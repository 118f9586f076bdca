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
    same token until it changes, or somebody removes the file. That a PIN is being tried is on the
    disk before the token gets it, so that a process that is killed over it has said so. Only a
    salted scrypt hash of PIN and serial number (``serial_of``) is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._refused: bytes | None = None
        self._tried: bytes | None = None

    def begin(self, serial: bytes, pin: str) -> None:
        """Remember that ``pin`` is being tried, for all processes if the disk permits."""
        salt = os.urandom(_SALT_BYTES)
        self._tried = salt + _hash(salt, serial, pin)
        try:
            replace(self._trial, self._tried, synced=True)
        except OSError as error:
            _tell("other processes cannot be told that the PIN is being tried", error)

    def close(self) -> None:
        """Remember the PIN that was being tried as refused."""
        try:
            self._trial.replace(self._path)
        except OSError as error:
            _tell("other processes cannot be told that the PIN is wrong", error)
            self._refused = self._tried

    def is_closed(self, serial: bytes, pin: str, *, was_wrong: bool) -> bool:
        """Tell whether ``pin`` has been refused by the token of that serial number.

        ``was_wrong`` says that by the token itself the last PIN was a wrong one. Then a trial whose
        end nobody knows, for the process was killed, was a refusal.
        """
        if was_wrong and _is_of(_read(self._trial), serial, pin):
            self.close()
        return any(_is_of(kept, serial, pin) for kept in (self._refused, _read(self._path)))

    def open(self) -> None:
        """Forget; the PIN has been accepted."""
        self._refused = None
        self._path.unlink(missing_ok=True)
        self.give_up()

    def give_up(self) -> None:
        """Forget the trial: the token has not looked at the PIN."""
        self._trial.unlink(missing_ok=True)

    @property
    def _trial(self) -> Path:
        return self._path.with_suffix(".trial")


def _tell(what: str, error: OSError) -> None:
    logger.error("%s: %s", what, error.strerror)  # a disk or a directory has no traceback


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _is_of(kept: bytes | None, serial: bytes, pin: str) -> bool:
    """Tell whether ``kept`` is of that PIN."""
    if not kept:
        return False
    salt, found = kept[:_SALT_BYTES], kept[_SALT_BYTES:]
    return hmac.compare_digest(found, _hash(salt, serial, pin))


def _hash(salt: bytes, serial: bytes, pin: str) -> bytes:
    return hashlib.scrypt(serial + b"\0" + pin.encode(), salt=salt, n=2**14, r=8, p=1)
