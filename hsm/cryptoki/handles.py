"""Object handles: bound to a lent session for one operation, remembered for one epoch."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, cast
from uuid import UUID

from cachetools import LRUCache
from pkcs11 import GCMParams, Mechanism, Object, PKCS11Error, _pkcs11, types
from pkcs11 import Session as RawSession
from pkcs11.exceptions import FunctionFailed

from hsm.algorithms.kinds import PublicKey
from hsm.cryptoki.faults import Fault, fault_of
from hsm.cryptoki.material import read_public
from hsm.cryptoki.objects import KeyObject
from hsm.cryptoki.repeated import GcmParameters, Parameters, Repeated
from hsm.cryptoki.session import Destroyed, Session

_MIXINS: Any = _pkcs11  # the stubs of python-pkcs11 name only its ``lib``


def handle_of(found: Object) -> int:
    """Return CK_OBJECT_HANDLE of an object that the token has shown."""
    return cast(int, found.handle)


def bare(made: Object) -> Object:
    """Return the same without the class that python-pkcs11 makes for each object, of 2 KiB.

    It can be read and destroyed, and not used.
    """
    own: Any = made  # its stub has no wrapper
    return cast(Object, _MIXINS.Object(own.wrapper))


@dataclass(frozen=True, slots=True, repr=False)
class Handle:
    """What is remembered of an object: its handle."""

    value: int

    def __repr__(self) -> str:
        return "<Handle>"

    @classmethod
    def of(cls, found: Object) -> "Handle":
        """Return what is worth remembering of the object ``found``: see ``PublicHandle.of``."""
        if isinstance(found, types.PublicKey):
            return PublicHandle.of(found)
        return Handle(handle_of(found))


@dataclass(frozen=True, slots=True, repr=False)
class PublicHandle(Handle):
    """What is remembered of a public key: its handle and its numbers."""

    numbers: PublicKey

    @classmethod
    def of(cls, found: Object) -> "PublicHandle":
        """Return what is worth remembering of the public key ``found``.

        Raises ``FunctionFailed`` if it cannot be read: while its files change, SoftHSM shows
        objects without their attributes.
        """
        try:
            return PublicHandle(handle_of(found), read_public(found))
        except ValueError as error:
            raise FunctionFailed from error
        except PKCS11Error as error:
            if fault_of(error) is not Fault.BUG:
                raise
            raise FunctionFailed from error


class LaterHandle(PublicHandle):
    """A public key that becomes an object when one is needed: its numbers often do."""

    __slots__ = ("_make",)
    _make: Callable[[], int]

    def __init__(self, numbers: PublicKey, make: Callable[[], int]) -> None:
        object.__setattr__(self, "numbers", numbers)  # as frozen classes are filled
        object.__setattr__(self, "_make", make)

    @property
    def value(self) -> int:
        """The handle of the object, which ``make`` makes or has made."""
        return self._make()


class Key(
    _MIXINS.EncryptMixin,  # type: ignore[misc]  # not in the stubs
    _MIXINS.DecryptMixin,  # type: ignore[misc]  # not in the stubs
    _MIXINS.SignMixin,  # type: ignore[misc]  # not in the stubs
    _MIXINS.VerifyMixin,  # type: ignore[misc]  # not in the stubs
    _MIXINS.WrapMixin,  # type: ignore[misc]  # not in the stubs
    _MIXINS.UnwrapMixin,  # type: ignore[misc]  # not in the stubs
    _MIXINS.DeriveMixin,  # type: ignore[misc]  # not in the stubs
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

    __slots__ = ("session",)  # in place of a property of python-pkcs11's

    session: RawSession
    """What python-pkcs11 performs the verbs of this class on."""

    remembered: Handle
    """What is left of the key when the session is given back."""

    def __init__(self, lent: Session, handle: Handle, made: Destroyed | None = None) -> None:
        self.lent = lent
        self.session, self.remembered = lent.raw, handle
        self._made = made

    @property
    def handle(self) -> int:
        """CK_OBJECT_HANDLE; void outside the epoch. Of some objects that are not made before."""
        return self.remembered.value

    def encrypt(self, data: bytes, **mechanism: Any) -> bytes:
        """Return the output of the mechanism; that of AES-GCM without asking its length."""
        made, parameters = None, mechanism.get("mechanism_param")
        if isinstance(parameters, GCMParams):
            gcm = GcmParameters(ulTagBits=parameters.tag_bits)
            gcm.take(parameters.nonce, parameters.aad or b"")
            encrypt = self.repeated("Encrypt", Mechanism.AES_GCM, gcm)
            most_bytes = len(data) + parameters.tag_bits // 8
            made = encrypt(data, most_bytes=most_bytes) if encrypt else None
        if made is None:
            made = self.lent.call("C_Encrypt", super().encrypt, data, **mechanism)
        return made

    def decrypt(self, data: bytes, **mechanism: Any) -> bytes:
        """Return the output of the mechanism."""
        result: bytes = self.lent.call("C_Decrypt", super().decrypt, data, **mechanism)
        return result

    def sign(self, data: bytes, **mechanism: Any) -> bytes:
        """Return the signature or MAC of the mechanism."""
        result: bytes = self.lent.call("C_Sign", super().sign, data, **mechanism)
        return result

    def verify(self, data: bytes, signature: bytes, **mechanism: Any) -> bool:
        """Tell whether the token takes ``signature`` for one."""
        result: bool = self.lent.call("C_Verify", super().verify, data, signature, **mechanism)
        return result

    def wrap_key(self, key: "Key", **mechanism: Any) -> bytes:
        """Return ``key`` wrapped by this one; without parameters, the length is not asked."""
        made = None
        if mechanism.get("mechanism_param") is None:
            made = self.lent.wrap(self.handle, mechanism["mechanism"], key.handle)
        if made is None:
            made = self.lent.call("C_WrapKey", super().wrap_key, key, **mechanism)
        return made

    def unwrap_key(self, *arguments: Any, **named: Any) -> Object:
        """Make an object of a wrapped key."""
        result: Object = self.lent.call("C_UnwrapKey", super().unwrap_key, *arguments, **named)
        return result

    def derive_key(self, *arguments: Any, **named: Any) -> Object:
        """Make an object of what this key agrees on with another."""
        result: Object = self.lent.call("C_DeriveKey", super().derive_key, *arguments, **named)
        return result

    def repeated(
        self, name: str, mechanism: Mechanism, parameters: Parameters = None
    ) -> Repeated | None:
        """See ``Session.repeated``."""
        return self.lent.repeated(name, self.handle, mechanism, parameters)

    def destroy(self) -> None:
        """Destroy the object; only keys that ``lent`` made itself are destroyed here."""
        assert self._made is not None  # noqa: S101  # see ``bind``
        self.lent.destroy(self._made)

    def __repr__(self) -> str:
        return "<Key>"


Cek = tuple[Key, ...]
"""The objects of a content encryption key, in the order of the parts of its row."""


class PublicObject(Key):
    """The public object of a pair."""

    def __init__(self, lent: Session, handle: PublicHandle, made: Destroyed | None = None) -> None:
        super().__init__(lent, handle, made)
        self.numbers = handle.numbers


def bind(lent: Session, made: Object) -> Key:
    """Return the object that ``lent`` has just made as a key."""
    return Key(lent, Handle(handle_of(made)), made)


def bind_public(lent: Session, made: Object) -> PublicObject:
    """Return the public object that ``lent`` has just made as a key."""
    return PublicObject(lent, PublicHandle.of(made), made)


@contextmanager
def temporary(key: Key) -> Iterator[Key]:
    """Lend ``key`` for one ``with`` block and destroy it at the end."""
    try:
        yield key
    finally:
        key.destroy()


@contextmanager
def temporary_parts(makes: Iterable[Callable[[], Key]]) -> Iterator[tuple[Key, ...]]:
    """Make the objects of one key for one ``with`` block and destroy them at the end."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(temporary(make())) for make in makes)


class HandleCache:
    """The handles of one epoch, the least recently used forgotten first.

    After C_Finalize numeric handles start again, and an old one can name another key. So a
    cache is made with each initialisation and dies with it.
    """

    def __init__(self, size: int = 65_536) -> None:
        self._lock = Lock()  # even to read moves a handle to the end
        # By number: a UUID hashes and compares itself in Python.
        self._handles: LRUCache[tuple[int, KeyObject], Handle] = LRUCache(size)

    def get(self, kid: UUID, half: KeyObject) -> Handle | None:
        """Return the handle of that half of ``kid``, if it is known."""
        with self._lock:
            try:
                return self._handles[kid.int, half]
            except KeyError:  # ``get`` would look twice
                return None

    def put(self, kid: UUID, half: KeyObject, handle: Handle) -> None:
        """Remember the handle of that half of ``kid``."""
        with self._lock:
            self._handles[kid.int, half] = handle

    def drop(self, kid: UUID, halves: Iterable[KeyObject]) -> None:
        """Forget those halves of ``kid``."""
        with self._lock:
            for half in halves:
                self._handles.pop((kid.int, half), None)
