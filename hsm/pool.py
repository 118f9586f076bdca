"""Sessions are lent one at a time to one user, and thrown away after trouble."""

import os
import queue
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from pkcs11 import PKCS11Error, Session, Token
from pkcs11.attributes import AttributeMapper

from hsm.errors import (
    CryptoFailure,
    DecryptionFailed,
    KeyNotFound,
    TokenUnavailable,
    UnsupportedAlgorithm,
)

_CALLERS_FAULTS: Final = (KeyNotFound, UnsupportedAlgorithm, CryptoFailure, DecryptionFailed)


class Sessions(NamedTuple):
    """How many sessions operations share, and how many of them are lent now."""

    size: int
    lent: int


class SessionPool:
    """``size`` read-write sessions sharing one login.

    Login belongs to the application, not to the session (PKCS #11 v2.40 §5.6, C_Login), and
    ``Session.close`` of a session opened with a PIN logs everybody out. So one anchor session
    logs in and outlives the rest, which never log in themselves and are opened when first needed.
    """

    def __init__(
        self,
        token: Token,
        pin: str,
        *,
        size: int,
        wait_seconds: float,
        attribute_mapper: AttributeMapper,
    ) -> None:
        """Log in, once. Raises ``PKCS11Error``, of the PIN class if the PIN was refused."""
        self._token = token
        self._mapper = attribute_mapper
        self._wait_seconds = wait_seconds
        self._size = size
        self._pid = os.getpid()
        self._idle: queue.LifoQueue[Session | None] = queue.LifoQueue()
        self.anchor = token.open(rw=True, user_pin=pin, attribute_mapper=attribute_mapper)
        for _ in range(size):
            self._idle.put(None)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Lend a session for one ``with`` block.

        Raises ``TokenUnavailable`` if none comes free in time. A session is kept when the block
        ends well or by a fault of the caller's; after anything else it is closed, because a failed
        operation can leave it unusable for ever.
        """
        if os.getpid() != self._pid:
            raise TokenUnavailable("the process was forked after it had opened the token")
        session = self._take()
        kept = None
        try:
            session = session or self._token.open(rw=True, attribute_mapper=self._mapper)
            yield session
            kept = session
        except _CALLERS_FAULTS:
            kept = session
            raise
        finally:
            if session is not None and kept is None:
                with suppress(PKCS11Error):
                    session.close()
            self._idle.put(kept)

    @property
    def sessions(self) -> Sessions:
        """How many sessions there are, and how many are lent now."""
        return Sessions(self._size, self._size - self._idle.qsize())

    def drain(self, timeout_seconds: float) -> bool:
        """Take every session out of use for good; return whether all have come back by now."""
        with suppress(queue.Empty):
            while self._size:
                self._idle.get(timeout=timeout_seconds)
                self._size -= 1
        return not self._size

    def _take(self) -> Session | None:
        try:
            return self._idle.get(timeout=self._wait_seconds)
        except queue.Empty:
            raise TokenUnavailable("all sessions are busy") from None
