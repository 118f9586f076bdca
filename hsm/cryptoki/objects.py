"""The objects of a key: what they are, and their CKA_ID."""

from collections.abc import Iterable
from typing import Final, NamedTuple
from uuid import UUID

from pkcs11 import Attribute, KeyType, ObjectClass

from hsm.algorithms.families import Algorithm, KeyManagement
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import AES, HMAC, KeyKind
from hsm.cryptoki.material import Attributes

_OF_THE_MAC: Final = b"\1"
_KID_BYTES: Final = 16


class KeyObject(NamedTuple):
    """An object of a key: its class, and its type where a key may have two of that class.

    CKA_ID is the 16 bytes of the kid, and behind them the ``suffix``.
    """

    object_class: ObjectClass
    key_type: KeyType | None = None
    suffix: bytes = b""

    @property
    def template(self) -> Attributes:
        """The attributes that find the object, beside its CKA_ID."""
        typed = {Attribute.KEY_TYPE: self.key_type} if self.key_type is not None else {}
        return {Attribute.CLASS: self.object_class} | typed

    def key_id(self, kid: UUID) -> bytes:
        """Return the CKA_ID of this object of the key ``kid``."""
        return kid.bytes + self.suffix

    def key_ids(self, kid: UUID) -> tuple[bytes, ...]:
        """Return the CKA_ID, and behind it what it was before MAC halves had one of their own."""
        return (self.key_id(kid), kid.bytes) if self.suffix else (kid.bytes,)


PRIVATE: Final = KeyObject(ObjectClass.PRIVATE_KEY)
PUBLIC: Final = KeyObject(ObjectClass.PUBLIC_KEY)


def secret(kind: KeyKind) -> KeyObject:
    """Return the secret object of that kind."""
    return KeyObject(ObjectClass.SECRET_KEY, kind.key_type)


MAC_HALF: Final = secret(HMAC)._replace(suffix=_OF_THE_MAC)
"""Of a key of two secret objects: some tokens (NSS) have one secret key of a CKA_ID at most."""

OBJECTS: Final = (secret(AES), secret(HMAC), MAC_HALF, PRIVATE, PUBLIC)
"""Every object that a key may have, those that can do harm first."""


def secrets_of(row: Algorithm) -> tuple[KeyObject, ...]:
    """Return the secret objects of a key of ``row``, in the order of its parts."""
    own = secret(row.kind)
    return (own,) if len(row.parts) == 1 else (MAC_HALF, own)


def objects_of(spec: KeySpec) -> tuple[KeyObject, ...]:
    """Return the objects that make a whole key, those that can do harm first."""
    return (PRIVATE, PUBLIC) if spec.kind.is_pair else secrets_of(spec.algorithms[0])


def kid_of(key_id: bytes) -> tuple[UUID, bytes] | None:
    """Return the kid in a CKA_ID of ours and the suffix behind it; ``None`` of any other."""
    kid, suffix = key_id[:_KID_BYTES], key_id[_KID_BYTES:]
    is_ours = len(kid) == _KID_BYTES and suffix in {b"", _OF_THE_MAC}
    return (UUID(bytes=kid), suffix) if is_ours else None


def is_whole(spec: KeySpec, found: frozenset[KeyObject] | None) -> bool:
    """Tell whether ``found`` are all objects of a key, under the CKA_IDs of today or of before."""
    return found is not None and _without_suffixes(found) == _without_suffixes(objects_of(spec))


def _without_suffixes(objects: Iterable[KeyObject]) -> frozenset[KeyObject]:
    return frozenset(each._replace(suffix=b"") for each in objects)


def encrypting(row: KeyManagement, *, is_checked: bool) -> tuple[KeyObject, ...]:
    """Return the objects that encrypt, and decrypt for the check of the result."""
    if not row.kind.is_pair:
        return secrets_of(row)
    return (PUBLIC, PRIVATE) if is_checked else (PUBLIC,)


def decrypting(row: KeyManagement) -> tuple[KeyObject, ...]:
    """Return the objects that decrypt."""
    return (PRIVATE,) if row.kind.is_pair else secrets_of(row)
