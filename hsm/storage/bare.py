"""Session objects of which nothing is known but their handles: cheap to make, and to keep.

python-pkcs11 reads ten attributes of each object that it makes, and makes a class for it: a sixth
of the time that SoftHSM takes to unwrap a key.
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self, cast

from pkcs11 import Attribute, Mechanism
from pkcs11.constants import DEFAULT
from pkcs11.exceptions import ObjectHandleInvalid, PKCS11Error, SessionClosed, SessionHandleInvalid

from hsm.cryptoki.attributes import attribute_mapper
from hsm.cryptoki.handles import Handle, Key, bare
from hsm.cryptoki.material import Attributes
from hsm.cryptoki.module import CKR_OK
from hsm.cryptoki.session import Entry, Session

MAPPER: Final = attribute_mapper()
_ERRORS: Final[Mapping[int, type[PKCS11Error]]] = {
    0x82: ObjectHandleInvalid,
    0xB0: SessionClosed,
    0xB3: SessionHandleInvalid,
}


class Made(Protocol):
    """A session object, as those have it who only keep and destroy it."""

    @property
    def handle(self) -> int:
        """CK_OBJECT_HANDLE."""

    def destroy(self) -> None:
        """Destroy it; raise ``PKCS11Error``."""


@dataclass(frozen=True, slots=True, repr=False)
class Bare:
    """One that ``session`` has made."""

    session: Session
    handle: int

    def destroy(self) -> None:
        """See ``Made``."""
        answer = self.session.destroy_handle(self.handle)
        if answer != CKR_OK:
            # As python-pkcs11 says it of a value that it has no class for.
            raise _ERRORS.get(answer, PKCS11Error)(f"Unmapped error code {answer:#x}")


class Packed:
    """A template as the token reads it, good for as long as this object lives."""

    def __init__(self, template: Attributes) -> None:
        packed = [
            (int(name), MAPPER.pack_attribute(name, value))
            for name, value in template.items()
            if value is not DEFAULT
        ]
        self._values = [ctypes.create_string_buffer(octets, len(octets)) for _, octets in packed]
        self._entries = (Entry * len(packed))(
            *(
                Entry(name, ctypes.addressof(value), len(value))
                for (name, _), value in zip(packed, self._values, strict=True)
            )
        )

    def __bytes__(self) -> bytes:
        return bytes(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def place(self) -> tuple[int, int]:
        """Where it is in memory, and how many attributes there are."""
        return ctypes.addressof(self._entries), len(self._entries)


@dataclass(frozen=True, slots=True)
class Unwrapping:
    """How an object of one kind is unwrapped: the arguments of python-pkcs11, and what it packs."""

    arguments: dict[str, Any]
    template: Packed

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> Self:
        """Return what is unwrapped with these ``arguments`` as a session object."""
        template: Attributes = MAPPER.generic_key_template(
            {
                Attribute.CLASS: arguments["object_class"],
                Attribute.KEY_TYPE: arguments["key_type"],
            },
            id_=None,
            label=None,
            store=False,
            capabilities=arguments["capabilities"],
        )
        return cls(arguments, Packed(template | arguments["template"]))

    def unwrapped(
        self, session: Session, key: Handle, mechanism: Mechanism, wrapped: bytes
    ) -> Made:
        """Make the object of what is ``wrapped`` by ``key``; raise ``PKCS11Error``."""
        handle = session.unwrap(key.value, mechanism, wrapped, template=self.template.place)
        if handle is not None:
            return Bare(session, handle)
        made = Key(session, key).unwrap_key(key_data=wrapped, mechanism=mechanism, **self.arguments)
        return cast(Made, bare(made))  # it has a handle: it is made
