"""Sessions are lent one at a time to one user, and thrown away after trouble."""

import os
import queue
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Final, NamedTuple

from pkcs11 import PKCS11Error, Token
from pkcs11.attributes import AttributeMapper

from hsm.cryptoki.module import FunctionList
from hsm.cryptoki.session import Session, measured
from hsm.errors import (
    Cause,
    CryptoFailure,
    DecryptionFailed,
    KeyNotFound,
    KeyUnavailable,
    TokenUnavailable,
    UnsupportedAlgorithm,
)
from hsm.observer import Observer

_CALLERS_FAULTS: Final = (
    *(KeyNotFound, KeyUnavailable, UnsupportedAlgorithm),
    *(CryptoFailure, DecryptionFailed),
)
Watching = Callable[[], AbstractContextManager[None]]
"""Ends the process if the ``with`` block does not come back from the token."""

TURN_SECONDS: Final = 0.02
_BETWEEN_TURNS_SECONDS: Final = 0.0002


class Sessions(NamedTuple):
    """How many sessions operations share, and how many of them are lent now."""

    size: int
    lent: int


class Lane:
    """``size`` sessions for one kind of work, opened when first needed.

    They are opened and closed while somebody is ``watching``: who is lent one is watched only as
    long as he has it.
    """

    def __init__(
        self,
        open_session: Callable[[], Session],
        *,
        size: int,
        wait_seconds: float,
        of: Observer,
        watching: Watching = nullcontext,
    ) -> None:
        self._open_session = open_session
        self._watching = watching
        self._wait_seconds = wait_seconds
        self._size = size
        self._observer = of
        self._pid = os.getpid()
        # In C: the queues in Python cost as much as the cryptography of a small message.
        self._idle: queue.SimpleQueue[Session | None] = queue.SimpleQueue()
        for _ in range(size):
            self._idle.put(None)

    @property
    def sessions(self) -> Sessions:
        """How many there are, and how many are lent now."""
        return Sessions(self._size, max(0, self._size - self._idle.qsize()))

    def session(self, loan: "Loan | None" = None, *, is_new: bool = False) -> "Lent":
        """Lend a session for one ``with`` block, that of the ``loan`` if there is one.

        One that ``is_new`` is opened for the block: where one has ended, others may have, too.
        Raises ``TokenUnavailable`` if none comes free in time.
        """
        return Lent(self, loan, is_new=is_new)

    def require_own(self) -> None:
        """Raise ``TokenUnavailable`` in a process that another one has forked."""
        if os.getpid() != self._pid:
            raise TokenUnavailable("the process was forked after it had opened the token")

    def open(self) -> Session:
        """Return a new session; the caller has a place for it."""
        with self._watching():
            return self._open_session()

    def close(self, session: Session | None) -> None:
        """End a session that is not to be lent again."""
        if session is not None:
            with self._watching(), suppress(PKCS11Error):
                session.close()

    def keep_alive(self) -> None:
        """Use each session that is free; one that the token has ended makes room for another."""
        for _ in range(self._idle.qsize()):
            with suppress(queue.Empty):
                self._idle.put(self._alive(self._idle.get_nowait()))

    def _alive(self, session: Session | None) -> Session | None:
        if session is None or session.is_alive():
            return session
        self.close(session)
        return None

    def drain(self) -> None:
        """Take every session out of use for good; wait until all have come back."""
        for _ in range(self._size):
            self._idle.get()

    def take(self, *, wait: bool = True) -> Session | None:
        """Return a session, or nothing in the place of one that is to be opened."""
        started = time.perf_counter()
        try:
            return self._idle.get(timeout=self._wait_seconds if wait else 0)
        except queue.Empty:
            raise TokenUnavailable("all sessions are busy", cause=Cause.BUSY) from None
        finally:
            self._observer.waited(time.perf_counter() - started)

    def give(self, session: Session | None) -> None:
        """Put a session back, or its place."""
        self._idle.put(session)

    def make_room(self, session: Session | None) -> None:
        """Exchange ``session`` for a place without one, or close it if no such place is free."""
        for _ in range(self._size):
            if session is None:
                return
            self.give(session)
            session = self.take()
        self.close(session)


class Lent:
    """A session of ``lane`` for one ``with`` block.

    It is kept when the block ends well or by a fault of the caller's; after anything else it is
    closed, because a failed operation can leave it unusable for ever. No generator: one would cost
    as much as a call into the token.
    """

    __slots__ = ("_is_new", "_lane", "_loan", "_session")

    def __init__(self, lane: Lane, loan: "Loan | None", *, is_new: bool) -> None:
        self._lane = lane
        self._loan = loan
        self._is_new = is_new
        self._session: Session | None = None

    def __enter__(self) -> Session:
        """Begin."""
        lane, loan = self._lane, self._loan
        lane.require_own()
        session = loan.take(lane) if loan else lane.take()
        if self._is_new:
            lane.make_room(session)
            session = None
        if session is None:
            try:
                session = lane.open()
            except BaseException:
                self._give(None)
                raise
        self._session = session
        return session

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """End."""
        if error is None or isinstance(error, _CALLERS_FAULTS):
            self._give(self._session)
        else:
            self._lane.close(self._session)
            self._give(None)

    def _give(self, session: Session | None) -> None:
        if self._loan:
            self._loan.give(self._lane, session)
        else:
            self._lane.give(session)


class Loan:
    """A session, or its place, that one thread keeps between its operations.

    It goes back after ``TURN_SECONDS``, so that others have their turn. A thread that has waited
    in vain does not wait again for its next operation.
    """

    def __init__(self) -> None:
        self._lane: Lane | None = None
        self._session: Session | None = None
        self._until = 0.0
        self._is_patient = True

    def take(self, lane: Lane) -> Session | None:
        """Return what is kept of ``lane``, or a session that is free."""
        if self._lane is lane:
            self._lane = None
            return self._session
        self.end()
        is_patient, self._is_patient = self._is_patient, False
        session = lane.take(wait=is_patient)
        self._is_patient = True
        self._until = time.monotonic() + TURN_SECONDS
        return session

    def give(self, lane: Lane, session: Session | None) -> None:
        """Keep the session for the next operation, or return it once its time slice is over."""
        if time.monotonic() < self._until:
            self._lane, self._session = lane, session
        else:
            lane.give(session)
            time.sleep(_BETWEEN_TURNS_SECONDS)  # else this thread would be the first to take it

    def end(self) -> None:
        """Put back what is kept."""
        lane, self._lane = self._lane, None
        if lane:
            lane.give(self._session)
            self._session = None


class SessionPool:
    """Read-write sessions sharing one login, in two lanes.

    Login belongs to the application, not to the session (PKCS #11 v2.40 §5.6, C_Login), and
    closing a session that was opened with a PIN logs everybody out. So one anchor session logs in
    and outlives the rest, which never log in themselves. ``operations`` are for everybody,
    ``generations`` for what takes seconds.
    """

    def __init__(  # noqa: PLR0913  # settings, all by name
        self,
        token: Token,
        pin: str,
        *,
        sizes: tuple[int, int],
        wait_seconds: float,
        attribute_mapper: AttributeMapper,
        observer: Observer,
        functions: FunctionList | None,
        watching: Watching,
    ) -> None:
        """Log in, once. Raises ``PKCS11Error``, of the PIN class if the PIN was refused."""

        def open_session(function: str = "C_OpenSession", user_pin: str | None = None) -> Session:
            raw = measured(
                observer,
                function,
                lambda: token.open(rw=True, user_pin=user_pin, attribute_mapper=attribute_mapper),
            )
            return Session(raw, observer, functions)

        self.token: Final = token
        self.open_session: Final = open_session
        self.anchor: Final = open_session("C_Login", pin)
        self.operations, self.generations = (
            Lane(
                open_session,
                size=size,
                wait_seconds=wait_seconds,
                of=observer,
                watching=watching,
            )
            for size in sizes
        )

    @property
    def listed(self) -> frozenset[int]:
        """The mechanisms that the token lists, which says nothing of what it does."""
        return frozenset(map(int, self.token.slot.get_mechanisms()))

    def drain(self) -> None:
        """Take every session out of use for good; wait until all have come back."""
        self.operations.drain()
        self.generations.drain()

    def keep_alive(self) -> None:
        """Use each session that is free, that of the login too.

        Some tokens end a session that nobody uses; with that of the login its objects would go.
        """
        self.anchor.is_alive()
        self.operations.keep_alive()
        self.generations.keep_alive()
