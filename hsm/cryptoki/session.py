"""A session on the token as operations use it: every call is measured, under its PKCS#11 name."""

import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

from pkcs11 import Attribute, Mechanism, Object, PKCS11Error
from pkcs11 import Session as RawSession

from hsm.cryptoki.faults import Fault, fault_of, name_of
from hsm.cryptoki.module import CKR_OK, FunctionList
from hsm.cryptoki.repeated import MechanismStructure, Parameters, Repeated
from hsm.observer import Observer

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_ANY_BITS: Final = 64
_POINT_BYTES: Final = 256
"""More than CKA_EC_POINT takes on any curve."""
_WRAPPED_BYTES: Final = 8_192
"""More than any key takes, wrapped; of a longer one python-pkcs11 asks the length."""


class Entry(ctypes.Structure):
    """CK_ATTRIBUTE."""

    _fields_ = (
        ("type", ctypes.c_ulong),
        ("pValue", ctypes.c_void_p),
        ("ulValueLen", ctypes.c_ulong),
    )


def measured(
    observer: Observer,
    function: str,
    verb: Callable[Arguments, Result],
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> Result:
    """Return what ``verb`` returns, and report it as ``function``, which errors note.

    A verb of python-pkcs11 is up to three calls (C_SignInit, C_Sign for the length, C_Sign); it
    counts as one, under the name of the last.
    """
    code = None
    started = time.perf_counter()
    try:
        return verb(*arguments, **named)
    except PKCS11Error as error:
        code = name_of(error)
        error.add_note(function)
        raise
    finally:
        observer.called(function, time.perf_counter() - started, code)


class Destroyed(Protocol):
    """An object that can be destroyed."""

    def destroy(self) -> None:
        """Destroy it; raise ``PKCS11Error``."""


class Session:
    """A session of python-pkcs11 (``raw``), and the observer of its calls.

    ``functions`` are those of the library, where they can be called beside python-pkcs11.
    """

    def __init__(
        self, raw: RawSession, observer: Observer, functions: FunctionList | None = None
    ) -> None:
        self.raw: Final = raw
        self._observer = observer
        self._functions = functions

    def call(
        self,
        function: str,
        verb: Callable[Arguments, Result],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Result:
        """Return what ``verb`` returns, and report it as ``function``; like ``measured``."""
        started = time.perf_counter()
        code = None
        try:
            return verb(*arguments, **named)
        except PKCS11Error as error:
            code = name_of(error)
            error.add_note(function)
            raise
        finally:
            self._observer.called(function, time.perf_counter() - started, code)

    def generate_random(self, bits: int) -> bytes:
        """Return random bytes of the token."""
        return bytes(self.call("C_GenerateRandom", self.raw.generate_random, bits))

    def is_alive(self) -> bool:
        """Tell whether the token has not ended the session; to ask keeps it from being idle."""
        try:
            self.generate_random(_ANY_BITS)
        except PKCS11Error as error:
            return fault_of(error) is not Fault.SESSION_LOST
        return True

    def repeated(
        self, name: str, key: int, mechanism: Mechanism, parameters: Parameters = None
    ) -> Repeated | None:
        """Return what calls a function such as ``Encrypt`` or ``Sign`` with the handle ``key``.

        Returns ``None`` where python-pkcs11 alone can call the library.
        """
        if self._functions is None:
            return None
        return Repeated(
            *(self._functions, name, self._observer),
            session=self._handle,
            key=key,
            mechanism=mechanism,
            parameters=parameters,
        )

    def generate_handles(
        self, mechanism: Mechanism, *, public: tuple[int, int], private: tuple[int, int]
    ) -> tuple[int, int] | None:
        """Make a pair of two templates; return its handles, that of the public half first.

        Each is where CK_ATTRIBUTEs are, and how many. Returns ``None`` where python-pkcs11 has to
        do it or to say why the token refuses.
        """
        its, made = MechanismStructure(mechanism, None, 0), (ctypes.c_ulong * 2)()
        first = ctypes.addressof(made)
        is_done = self._does(
            *("C_GenerateKeyPair", ctypes.addressof(its), *public, *private),
            *(first, first + ctypes.sizeof(ctypes.c_ulong)),
        )
        return (made[0], made[1]) if is_done else None

    def read_point(self, handle: int) -> bytes | None:
        """Return CKA_EC_POINT of a handle that was made here, ``None`` if the token says none."""
        value = ctypes.create_string_buffer(_POINT_BYTES)
        asked = Entry(Attribute.EC_POINT, ctypes.addressof(value), len(value))
        is_done = self._does("C_GetAttributeValue", handle, ctypes.addressof(asked), 1)
        return value.raw[: asked.ulValueLen] if is_done else None

    def wrap(self, key: int, mechanism: Mechanism, wrapped: int) -> bytes | None:
        """Return what the handle ``key`` makes of the handle ``wrapped``, without asking its size.

        SoftHSM encrypts it to find that out, and NSS says too little for AES-KWP. Returns ``None``
        where python-pkcs11 has to do it or to say why the token refuses.
        """
        its = MechanismStructure(mechanism, None, 0)
        output = ctypes.create_string_buffer(_WRAPPED_BYTES)
        length = ctypes.c_ulong(len(output))
        is_done = self._does(
            "C_WrapKey", ctypes.addressof(its), key, wrapped, output, ctypes.byref(length)
        )
        return output.raw[: length.value] if is_done else None

    def unwrap(
        self, key: int, mechanism: Mechanism, wrapped: bytes, *, template: tuple[int, int]
    ) -> int | None:
        """Return the handle of a key that the handle ``key`` unwraps, nothing else being asked.

        ``template`` is where CK_ATTRIBUTEs are, and how many. Returns ``None`` where python-pkcs11
        has to do it or to say why the token refuses.
        """
        its, made = MechanismStructure(mechanism, None, 0), ctypes.c_ulong()
        is_done = self._does(
            *("C_UnwrapKey", ctypes.addressof(its), key, wrapped, len(wrapped)),
            *(*template, ctypes.byref(made)),
        )
        return made.value if is_done else None

    def destroy_handle(self, handle: int) -> int:
        """Destroy the object of a handle that was made here; return CKR_OK or what is wrong."""
        assert self._functions is not None  # noqa: S101  # there was such a handle
        return int(self._functions.C_DestroyObject(self._handle, handle))

    def generate_key(self, *arguments: Any, **named: Any) -> Object:
        """Make a secret key."""
        return self.call("C_GenerateKey", self.raw.generate_key, *arguments, **named)

    def generate_keypair(self, *arguments: Any, **named: Any) -> tuple[Object, Object]:
        """Make a pair; the public half comes first."""
        return self.call("C_GenerateKeyPair", self.raw.generate_keypair, *arguments, **named)

    def digest(self, parts: Sequence[Any], **mechanism: Any) -> bytes:
        """Return the hash over bytes and keys; of a key its value counts, which is not shown."""
        return self.call("C_DigestFinal", self.raw.digest, iter(parts), **mechanism)

    def create_object(self, template: dict[Attribute, Any]) -> Object:
        """Make an object of ``template``."""
        return self.call("C_CreateObject", self.raw.create_object, template)

    def find(self, template: dict[Attribute, Any]) -> list[Object]:
        """Return all objects that match: an abandoned search would block the session for ever."""
        return self.call("C_FindObjects", lambda: list(self.raw.get_objects(template)))

    def read(self, made: Object, attribute: Attribute) -> Any:
        """Return an attribute of an object that this session has made or found."""
        return self.call("C_GetAttributeValue", made.__getitem__, attribute)

    def destroy(self, made: Destroyed) -> None:
        """Destroy an object that this session has made or found."""
        self.call("C_DestroyObject", made.destroy)

    def destroy_if_there(self, made: Object) -> None:
        """Destroy an object that another process may have destroyed meanwhile."""
        try:
            self.destroy(made)
        except PKCS11Error as error:
            if fault_of(error) is not Fault.KEY_GONE:
                raise

    def close(self) -> None:
        """End the session; never that of the login, which would log everybody out."""
        self.call("C_CloseSession", self.raw.close)

    def _does(self, function: str, *arguments: Any) -> bool:
        """Tell whether the library's own ``function`` succeeds; only then it is reported."""
        if self._functions is None:
            return False
        started = time.perf_counter()
        is_done = bool(getattr(self._functions, function)(self._handle, *arguments) == CKR_OK)
        if is_done:
            self._observer.called(function, time.perf_counter() - started, None)
        return is_done

    @property
    def _handle(self) -> int:
        """CK_SESSION_HANDLE, of which the stub of python-pkcs11 does not know."""
        raw: Any = self.raw
        return cast(int, raw.handle)
