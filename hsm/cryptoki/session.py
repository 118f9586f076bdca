"""A session on the token as operations use it: every call is measured, under its PKCS#11 name."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, TypeVar

from pkcs11 import Attribute, Object, PKCS11Error
from pkcs11 import Session as RawSession

from hsm.cryptoki.faults import name_of
from hsm.observer import Observer

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def measured(
    observer: Observer,
    function: str,
    verb: Callable[Arguments, Result],
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> Result:
    """Return what ``verb`` returns, and report it as ``function``.

    A verb of python-pkcs11 is up to three calls (C_SignInit, C_Sign for the length, C_Sign); it
    counts as one, under the name of the last.
    """
    code = None
    started = time.perf_counter()
    try:
        return verb(*arguments, **named)
    except PKCS11Error as error:
        code = name_of(error)
        raise
    finally:
        observer.called(function, time.perf_counter() - started, code)


class Session:
    """A session of python-pkcs11 (``raw``), and the observer of its calls."""

    def __init__(self, raw: RawSession, observer: Observer) -> None:
        self.raw: Final = raw
        self._observer = observer

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
            raise
        finally:
            self._observer.called(function, time.perf_counter() - started, code)

    def generate_random(self, bits: int) -> bytes:
        """Return random bytes of the token."""
        return bytes(self.call("C_GenerateRandom", self.raw.generate_random, bits))

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

    def destroy(self, made: Object) -> None:
        """Destroy an object that this session has made or found."""
        self.call("C_DestroyObject", made.destroy)

    def close(self) -> None:
        """End the session; never that of the login, which would log everybody out."""
        self.call("C_CloseSession", self.raw.close)
