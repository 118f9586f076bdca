"""Object handles: bound to a lent session for one operation, remembered for one epoch."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, NamedTuple, cast
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pkcs11 import KeyType, Object, ObjectClass, Session, _pkcs11, types

from hsm.material import read_rsa

_MIXINS: Any = _pkcs11  # the stubs of python-pkcs11 name only its ``lib``


def handle_of(found: Object) -> int:
    """Return CK_OBJECT_HANDLE of an object that the token has shown."""
    return cast(int, found.handle)


class Handle(NamedTuple):
    """What is remembered of an object: its handle and, of a public RSA key, its numbers."""

    value: int
    public: RSAPublicKey | None = None

    def __repr__(self) -> str:
        return "<Handle>"

    @classmethod
    def of(cls, found: Object) -> "Handle":
        """Return what is worth remembering of the object ``found``."""
        is_rsa = isinstance(found, types.PublicKey) and found.key_type is KeyType.RSA
        return cls(handle_of(found), read_rsa(found) if is_rsa else None)


class Key(
    _MIXINS.EncryptMixin,  # type: ignore[misc]
    _MIXINS.DecryptMixin,  # type: ignore[misc]
    _MIXINS.SignMixin,  # type: ignore[misc]
    _MIXINS.VerifyMixin,  # type: ignore[misc]
    _MIXINS.WrapMixin,  # type: ignore[misc]
    _MIXINS.UnwrapMixin,  # type: ignore[misc]
    types.Key,
):
    """A key object in the hands of one session.

    python-pkcs11 ties a key object to the session that found it and reads ten attributes to make
    one. A handle is valid in every session of the process (PKCS #11 Usage Guide v2.40, on session
    and object handles), so an operation binds the remembered handle to the session that it was
    lent, without asking the token.
    """

    key_type = None  # type: ignore[assignment]  # on purpose, see below
    """Never asked for: every call names its mechanism."""

    def __init__(self, session: Session, handle: Handle, made: Object | None = None) -> None:
        self._session = session
        self._handle = handle
        self._made = made

    @property
    def session(self) -> Session:
        """The session that performs the operation."""
        return self._session

    @property
    def handle(self) -> int:
        """CK_OBJECT_HANDLE; void outside the epoch."""
        return self._handle.value

    @property
    def public(self) -> RSAPublicKey | None:
        """The numbers of a public RSA key."""
        return self._handle.public

    def destroy(self) -> None:
        """Call C_DestroyObject; only keys that ``session`` made itself are destroyed here."""
        assert self._made is not None  # noqa: S101  # see ``bind``
        self._made.destroy()

    def __repr__(self) -> str:
        return "<Key>"


def bind(session: Session, made: Object) -> Key:
    """Return what ``session`` has just made as a key in its hands."""
    return Key(session, Handle(handle_of(made)), made)


@contextmanager
def temporary(key: Key) -> Iterator[Key]:
    """Lend ``key`` for one ``with`` block and destroy it at the end."""
    try:
        yield key
    finally:
        key.destroy()


class HandleCache:
    """The handles of one epoch, the least recently used forgotten first.

    After C_Finalize numeric handles start again, and an old one can name another key. So a
    cache is made with each initialisation and dies with it.
    """

    def __init__(self, size: int = 65_536) -> None:
        self._size = size
        self._lock = Lock()
        self._handles: OrderedDict[tuple[UUID, ObjectClass], Handle] = OrderedDict()

    def get(self, kid: UUID, half: ObjectClass) -> Handle | None:
        """Return the handle of that half of ``kid``, if it is known."""
        with self._lock:
            handle = self._handles.get((kid, half))
            if handle is not None:
                self._handles.move_to_end((kid, half))
            return handle

    def put(self, kid: UUID, half: ObjectClass, handle: Handle) -> None:
        """Remember the handle of that half of ``kid``."""
        with self._lock:
            self._handles[kid, half] = handle
            if len(self._handles) > self._size:
                self._handles.popitem(last=False)

    def drop(self, kid: UUID, halves: Iterable[ObjectClass]) -> None:
        """Forget those halves of ``kid``."""
        with self._lock:
            for half in halves:
                self._handles.pop((kid, half), None)
