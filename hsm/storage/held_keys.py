"""Keys that are unwrapped: session objects, which one session holds for all operations."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from pkcs11 import PKCS11Error
from pkcs11.exceptions import SessionHandleInvalid

from hsm.cryptoki.faults import Fault, fault_of, name_of
from hsm.cryptoki.handles import Handle
from hsm.cryptoki.objects import KeyObject
from hsm.cryptoki.session import Session
from hsm.messages import KeyRef
from hsm.storage.bare import Made
from hsm.waiting import Resting, alone

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Unwrapped(NamedTuple):
    """The objects of one key that have been made so far, and what is remembered of each."""

    objects: Mapping[KeyObject, Any]
    handles: Mapping[KeyObject, Handle]


@dataclass(slots=True, kw_only=True, repr=False)
class _Held:
    """A key that ``session`` holds, wiped when it ``is_dropped`` and has no ``users`` any more."""

    ref: KeyRef
    session: Session
    unwrapped: Unwrapped
    users: int = 1
    is_dropped: bool = False


class HeldKeys:
    """At most ``size`` keys of one epoch; of more the least recently used is wiped.

    A session object ends with the session that made it, and its handle is good in every session of
    the process (PKCS #11 Usage Guide v2.40). So one session, which is never closed while the epoch
    lasts, makes and destroys all of them, for one thread at a time; operations use the handles on
    sessions of their own. A key that is in use is wiped by the last who uses it. Who waits for
    another thread to be done with that session waits ``resting``.
    """

    def __init__(
        self, open_session: Callable[[], Session], size: int, resting: Resting = nullcontext
    ) -> None:
        self._open_session: Final = open_session
        self._size: Final = size
        self._session: Session | None = None
        self._session_lock = Lock()
        self._resting: Final = resting
        self._left: list[Made] = []
        """What the session still has, because the token did not destroy it when it was to."""
        self._lock = Lock()  # of all below; never held during a call into the token
        self._held: OrderedDict[UUID, _Held] = OrderedDict()

    @contextmanager
    def lent(
        self, ref: KeyRef, unwrap: Callable[[Session], Unwrapped]
    ) -> Iterator[Mapping[KeyObject, Handle]]:
        """Lend the key ``ref`` for one ``with`` block; if it is not here, ``unwrap`` makes it.

        One that was unwrapped from another blob, or under another row, is not here.
        """
        held = self._taken(ref) or self._added(ref, unwrap)
        try:
            yield held.unwrapped.handles
        except PKCS11Error as error:
            if fault_of(error) is Fault.KEY_GONE:
                self.keep_alive()
                self.forget([ref.kid])
            raise
        finally:
            self._give_back(held)

    def added(self, session: Session, make: Callable[[Session], Result]) -> Result:
        """Make another object of a key that is lent now and that ``session`` holds.

        Raises ``SessionHandleInvalid`` if it has ended.
        """
        with alone(self._session_lock, self._resting):
            if session is not self._session:
                raise SessionHandleInvalid
            return self._made(session, make)

    def kids(self) -> frozenset[UUID]:
        """Return which keys are unwrapped now."""
        with self._lock:
            return frozenset(self._held)

    def forget(self, kids: Iterable[UUID]) -> None:
        """Wipe those keys, each as soon as nobody uses it."""
        with self._lock:
            found = [self._held.pop(kid, None) for kid in kids]
            idle = [held for held in found if held and self._is_idle(held)]
        self._wipe(idle)

    def keep_alive(self) -> None:
        """Use the session; begin anew if the token has ended it, and all that it held with it.

        Some tokens end a session that nobody uses, and may give its handles to other objects.
        """
        with alone(self._session_lock, self._resting):
            if self._session is not None:
                self._forget_ended(self._session)
            if self._session is not None:
                self._left = _not_destroyed(self._session, self._left)

    def _taken(self, ref: KeyRef) -> _Held | None:
        with self._lock:
            held = self._held.get(ref.kid)
            if held is None or held.ref != ref:
                return None
            self._held.move_to_end(ref.kid)
            held.users += 1
            return held

    def _added(self, ref: KeyRef, unwrap: Callable[[Session], Unwrapped]) -> _Held:
        """Unwrap a key, in place of another of that name; of threads that do so the last counts."""
        held = self._unwrapped(ref, unwrap)
        with self._lock:
            dropped = [self._held.pop(ref.kid, None)]
            self._held[ref.kid] = held
            if len(self._held) > self._size:
                dropped.append(self._held.popitem(last=False)[1])
            idle = [each for each in dropped if each and self._is_idle(each)]
        self._wipe(idle)
        return held

    def _give_back(self, held: _Held) -> None:
        with self._lock:
            held.users -= 1
            is_to_wipe = held.is_dropped and held.users == 0
        if is_to_wipe:
            self._wipe([held])

    @staticmethod
    def _is_idle(held: _Held) -> bool:
        """Mark a key as dropped; tell whether it can be wiped at once."""
        held.is_dropped = True
        return held.users == 0

    def _unwrapped(self, ref: KeyRef, unwrap: Callable[[Session], Unwrapped]) -> _Held:
        with alone(self._session_lock, self._resting):
            session = self._session = self._session or self._open_session()
            unwrapped = self._made(session, unwrap)
        return _Held(ref=ref, session=session, unwrapped=unwrapped)

    def _made(self, session: Session, make: Callable[[Session], Result]) -> Result:
        try:
            return make(session)
        except PKCS11Error as error:
            if fault_of(error) is Fault.SESSION_LOST:
                self._forget_ended(session)
            raise

    def _wipe(self, dropped: Iterable[_Held]) -> None:
        """Destroy the objects of keys, unless the session that held them has ended."""
        for held in dropped:
            with alone(self._session_lock, self._resting):
                if held.session is self._session:
                    self._left += _not_destroyed(held.session, held.unwrapped.objects.values())

    def _forget_ended(self, session: Session) -> None:
        """Begin anew if ``session`` has ended; one that was only busy would keep its objects."""
        if session.is_alive():
            return
        with self._lock:
            self._held.clear()
        self._session, self._left = None, []
        with suppress(PKCS11Error):
            session.close()


def _not_destroyed(session: Session, objects: Iterable[Made]) -> list[Made]:
    """Destroy objects; return those that the token does not destroy now."""
    return [made for made in objects if not _is_destroyed(session, made)]


def _is_destroyed(session: Session, made: Made) -> bool:
    try:
        session.destroy(made)
    except PKCS11Error as error:
        if fault_of(error) is not Fault.KEY_GONE:
            logger.warning("an unwrapped key is not wiped: %s", name_of(error))
            return False
    return True
