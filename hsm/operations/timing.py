"""Delays failed decryptions and imports: their time must not depend on the cause.

Nor must what is reported of them.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from hsm.errors import DecryptionFailed, WrappedKeyRefused
from hsm.observer import Observer

_FAILURES: Final = (DecryptionFailed, WrappedKeyRefused)
FAILURE_SECONDS: Final = 0.05
_SLOT_SECONDS: Final = 0.01
_SLOT_BYTES: Final = 256  # of the encrypted key: RSA-2048


@dataclass(slots=True)
class _Failures:
    """How many there are, how long they took, and how long all such may take."""

    number: int = 0
    spent_seconds: float = 0.0
    slot_seconds: float = 0.0

    def add(self, seconds: float, encrypted_key: bytes) -> None:
        """Count one that took ``seconds``."""
        self.number += 1
        self.spent_seconds += seconds
        self.slot_seconds += _slot_seconds(len(encrypted_key))

    @property
    def missing_seconds(self) -> float:
        """How long the answer has to wait, so that its time depends on their number alone."""
        if not self.number:
            return 0.0
        seconds = max(FAILURE_SECONDS, self.slot_seconds)
        while seconds < self.spent_seconds:  # a slow token
            seconds *= 2
        return seconds - self.spent_seconds


class FailureDelay(threading.local):
    """Delays failed decryptions, one by one or many of one thread together.

    The steps are the same for every failure, and their times nearly so: what a token spends on
    writing an error to its log is not ours to even out. So one alone is held back until
    ``FAILURE_SECONDS`` have passed, or twice, four times as long on a slower token. Of many
    together the small differences would add up, so what they took is filled up to a sum that grows
    with their number: each has a slot of time, as long as its kind of operation may need, and the
    sum is doubled likewise. No session is held meanwhile.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._failures: _Failures | None = None

    @contextmanager
    def of(self, encrypted_key: bytes) -> Iterator[None]:
        """Delay a failure of the ``with`` block."""
        started = time.monotonic()
        try:
            with self._observer.withholding(*_FAILURES):
                yield
        except _FAILURES:
            self._fail(time.monotonic() - started, encrypted_key)
            raise

    @contextmanager
    def together(self) -> Iterator[None]:
        """Delay all failures of this thread together, at the end of the ``with`` block."""
        failures = self._failures = _Failures()
        try:
            yield
        finally:
            self._failures = None
            time.sleep(failures.missing_seconds)

    def _fail(self, seconds: float, encrypted_key: bytes) -> None:
        if self._failures is not None:
            self._failures.add(seconds, encrypted_key)
            return
        alone = _Failures()
        alone.add(seconds, encrypted_key)
        time.sleep(alone.missing_seconds)


def _slot_seconds(encrypted_key_bytes: int) -> float:
    """Return the time for one: that of an RSA operation grows with the cube of the modulus."""
    share = max(1.0, encrypted_key_bytes / _SLOT_BYTES)
    return min(FAILURE_SECONDS, _SLOT_SECONDS * share**3)
