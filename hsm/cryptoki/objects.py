"""The objects of a key: they share its CKA_ID and differ in class and key type."""

from typing import Final, NamedTuple

from pkcs11 import Attribute, KeyType, ObjectClass

from hsm.algorithms.families import Algorithm
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import AES, HMAC, KeyKind
from hsm.cryptoki.material import Attributes


class KeyObject(NamedTuple):
    """An object of a key: its class, and its type where a key may have two of that class."""

    object_class: ObjectClass
    key_type: KeyType | None = None

    @property
    def template(self) -> Attributes:
        """The attributes that find the object, beside its CKA_ID."""
        typed = {Attribute.KEY_TYPE: self.key_type} if self.key_type is not None else {}
        return {Attribute.CLASS: self.object_class} | typed


PRIVATE: Final = KeyObject(ObjectClass.PRIVATE_KEY)
PUBLIC: Final = KeyObject(ObjectClass.PUBLIC_KEY)


def secret(kind: KeyKind) -> KeyObject:
    """Return the secret object of that kind."""
    return KeyObject(ObjectClass.SECRET_KEY, kind.key_type)


OBJECTS: Final = (secret(AES), secret(HMAC), PRIVATE, PUBLIC)
"""Every object that a key may have, those that can do harm first."""


def secrets_of(row: Algorithm) -> tuple[KeyObject, ...]:
    """Return the secret objects of a key of ``row``, in the order of its parts."""
    return tuple(secret(part.kind) for part in row.parts)


def objects_of(spec: KeySpec) -> tuple[KeyObject, ...]:
    """Return the objects that make a whole key, those that can do harm first."""
    return (PRIVATE, PUBLIC) if spec.kind.is_pair else secrets_of(spec.algorithms[0])
