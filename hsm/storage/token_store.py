"""Keys as token objects: CKA_ID is the 16 bytes of the kid, one more for the MAC half of a key."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final
from uuid import UUID

from pkcs11 import Attribute, Object, ObjectClass, PKCS11Error
from pkcs11.exceptions import FunctionFailed

from hsm.algorithms.families import CEK_WRAPPING, Algorithm
from hsm.algorithms.kinds import PrivateKey, PublicKey
from hsm.cryptoki.attributes import LABEL_PREFIX, Templates, identity
from hsm.cryptoki.canary import CANARY_IDS, Canary
from hsm.cryptoki.faults import Fault, fault_of
from hsm.cryptoki.handles import Cek, Handle, HandleCache, Key, PublicHandle
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.objects import (
    OBJECTS,
    PRIVATE,
    PUBLIC,
    KeyObject,
    kid_of,
    objects_of,
    secrets_of,
)
from hsm.cryptoki.session import Session
from hsm.cryptoki.usages import USAGES, read, require_usages
from hsm.errors import CryptoFailure, KeyNotFound
from hsm.importing.ways import Unwrap
from hsm.messages import OWN_KEY, TRANSFER_KEY, KeyRef, Made
from hsm.storage.store import Material, Store

# SoftHSM can overlook what another process has just created; see ``softhsm``, and its issue 573.
_SEARCHES: Final = 3
_PAUSE_SECONDS: Final = 0.02
OWN_IDS: Final = (*CANARY_IDS, OWN_KEY.kid.bytes, TRANSFER_KEY.bytes)
"""CKA_ID of what the service has for itself."""

_CLASSES: Final = (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)


class TokenStore(Store):
    """The keys that are objects of one token, during one epoch."""

    def __init__(
        self, templates: Templates, canary: Canary, announce_change: Callable[[], None]
    ) -> None:
        self._templates = templates
        self._canary = canary
        self._announce_change = announce_change
        self._handles = HandleCache()

    def make(self, session: Session, ref: KeyRef, material: Material | None = None) -> Made:
        """See ``Store``."""
        if material is None and not ref.spec.kind.is_pair:
            return self._generate_secret(session, ref)
        if isinstance(material, bytes | bytearray):
            return self._import_secret(session, ref, material)
        pair = (
            self._generate_pair(session, ref)
            if material is None
            else self._import_pair(session, ref, material)
        )
        return self._made_pair(ref, *pair)

    def keep(self, ref: KeyRef, kek: Key, cek: Cek) -> Made:
        """See ``Store``."""
        (row,) = ref.spec.algorithms
        stored = [
            kek.unwrap_key(
                ObjectClass.SECRET_KEY,
                part.kind.key_type,
                kek.wrap_key(made, mechanism=CEK_WRAPPING),
                **identity(ref.kid, key_object.suffix),
                mechanism=CEK_WRAPPING,
                capabilities=self._templates.usages([part]),
                template=self._templates.secret([part]),
            )
            for key_object, part, made in zip(secrets_of(row), row.parts, cek, strict=True)
        ]
        return self._made_secret(ref, stored)

    def keep_unwrapped(
        self, session: Session, ref: KeyRef, unwrap: Unwrap, public: PublicKey | None
    ) -> Made:
        """See ``Store``."""
        arguments = self._templates.unwrapped(ref.spec, ref.kid)
        if public is None:
            return self._made_secret(ref, [unwrap(**arguments)])
        template = self._templates.imported_public(ref.kid, ref.spec, public)
        return self._made_pair(ref, session.create_object(template), unwrap(**arguments))

    def lent(self, session: Session, ref: KeyRef, objects: Iterable[KeyObject]) -> "_Lent":
        """See ``Store``."""
        return _Lent(self, session, ref.kid, objects)

    def bound(self, session: Session, kid: UUID, objects: Iterable[KeyObject]) -> Keys:
        """Return those objects of ``kid`` in the hands of ``session``."""
        handles = [(each, self._handle(session, kid, each)) for each in objects]
        return Keys.bound(session, self._canary, handles)

    def require_destroyable(self, session: Session, ref: KeyRef) -> None:
        """See ``Store``; none of the keys that are made here says so."""
        if any(_is_kept(session, ref.kid, key_object) for key_object in objects_of(ref.spec)):
            raise CryptoFailure("The token does not let anybody destroy this key")

    def destroy(self, session: Session, ref: KeyRef) -> None:
        """See ``Store``."""
        self.forget(ref.kid)
        for key_object in objects_of(ref.spec):
            found = self._find(session, ref.kid, key_object)
            for each in found:
                session.destroy_if_there(each)
            # Kryoptic says CKR_OK, too, if its database was busy and still has the object.
            if found and _found(session, ref.kid, key_object):
                raise FunctionFailed

    def inventory(self, session: Session) -> Mapping[UUID, frozenset[KeyObject]]:
        """See ``Store``. Our keys are those that carry our label."""
        self._announce_change()
        kids: dict[UUID, frozenset[KeyObject]] = {}
        for kid, key_object in _labelled(session):
            kids[kid] = kids.get(kid, frozenset()) | {key_object}
        return kids

    def forget(self, kid: UUID) -> None:
        """Drop what is remembered of ``kid``; the next use looks for it anew."""
        self._handles.drop(kid, OBJECTS)

    def _generate_secret(self, session: Session, ref: KeyRef) -> Made:
        assert ref.spec.bits is not None  # noqa: S101  # the schema gives every oct key a length
        (row,) = ref.spec.algorithms
        shares = row.shares(bytes(ref.spec.bits // 8))
        made = [
            session.generate_key(
                part.kind.key_type,
                8 * len(share),
                **identity(ref.kid, key_object.suffix),
                **self._templates.secret_generation([part]),
            )
            for key_object, part, share in zip(secrets_of(row), row.parts, shares, strict=True)
        ]
        return self._made_secret(ref, made)

    def _import_secret(self, session: Session, ref: KeyRef, value: bytes | bytearray) -> Made:
        (row,) = ref.spec.algorithms
        shares = row.shares(value)
        made = []
        for key_object, part, share in zip(secrets_of(row), row.parts, shares, strict=True):
            template = self._templates.imported_secret(ref.kid, part, share)
            named = {Attribute.ID: key_object.key_id(ref.kid)}
            made.append(session.create_object(template | named))
            share[:] = bytes(len(share))
        return self._made_secret(ref, made)

    def _generate_pair(self, session: Session, ref: KeyRef) -> tuple[Object, Object]:
        spec = ref.spec
        return session.generate_keypair(
            spec.kind.key_type,
            spec.bits,
            **identity(ref.kid),
            **self._templates.pair_generation(spec),
        )

    def _import_pair(self, session: Session, ref: KeyRef, key: PrivateKey) -> tuple[Object, Object]:
        templates, kid, spec = self._templates, ref.kid, ref.spec
        public = session.create_object(templates.imported_public(kid, spec, key.public_key()))
        return public, session.create_object(templates.imported_private(kid, spec, key))

    def _made_secret(self, ref: KeyRef, made: Iterable[Object]) -> Made:
        """Remember the objects of a new key, of which the last may have overwritten another."""
        (row,) = ref.spec.algorithms
        for key_object, part, each in zip(secrets_of(row), row.parts, made, strict=True):
            self._require_as_meant(ref.kid, key_object, [part], each)
            self._handles.put(ref.kid, key_object, Handle.of(each))
        return Made(ref)

    def _made_pair(self, ref: KeyRef, public: Object, private: Object) -> Made:
        for key_object, each in ((PRIVATE, private), (PUBLIC, public)):
            self._require_as_meant(ref.kid, key_object, ref.spec.algorithms, each)
        half = PublicHandle.of(public)
        self._handles.put(ref.kid, PRIVATE, Handle.of(private))
        self._handles.put(ref.kid, PUBLIC, half)
        return Made(ref, half.numbers)

    def _require_as_meant(
        self, kid: UUID, key_object: KeyObject, rows: Iterable[Algorithm], made: Object
    ) -> None:
        """Read a new object back; one that may do more than it is for is destroyed."""
        meant = {Attribute.ID: key_object.key_id(kid)} | key_object.template
        found = read(made, [*meant, *USAGES])
        if any(found.get(name) != value for name, value in meant.items()):
            raise FunctionFailed
        try:
            require_usages(made, self._templates.usages(rows), found)
        except CryptoFailure:
            made.destroy()
            raise

    def _handle(self, session: Session, kid: UUID, key_object: KeyObject) -> Handle:
        handle = self._handles.get(kid, key_object)
        if handle is None:
            handle = self._search(session, kid, key_object)
            self._handles.put(kid, key_object, handle)
        return handle

    def _search(self, session: Session, kid: UUID, key_object: KeyObject) -> Handle:
        # The first will do: SoftHSM sometimes finds one object twice.
        for found in self._find(session, kid, key_object):
            return Handle.of(found)
        raise KeyNotFound

    def _find(self, session: Session, kid: UUID, key_object: KeyObject) -> list[Object]:
        """Search more than once before believing that there is nothing.

        The last word is a search after the canary has been found: before, the token may have been
        in trouble. Raises ``TokenUnavailable`` if the canary is not found either.
        """
        for _ in range(_SEARCHES):
            if found := _found(session, kid, key_object):
                return found
            self._announce_change()
            time.sleep(_PAUSE_SECONDS)
        self._canary.require_found(session)
        return _found(session, kid, key_object)


class _Lent:
    """Objects of a key for one ``with`` block; if they have gone, they are forgotten."""

    __slots__ = ("_kid", "_objects", "_session", "_store")

    def __init__(
        self, store: TokenStore, session: Session, kid: UUID, objects: Iterable[KeyObject]
    ) -> None:
        self._store = store
        self._session = session
        self._kid = kid
        self._objects = objects

    def __enter__(self) -> Keys:
        """Look for them, or remember them."""
        try:
            return self._store.bound(self._session, self._kid, self._objects)
        except PKCS11Error as error:
            self._forget_if_gone(error)
            raise

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """End."""
        if isinstance(error, PKCS11Error):
            self._forget_if_gone(error)

    def _forget_if_gone(self, error: PKCS11Error) -> None:
        if fault_of(error) is Fault.KEY_GONE:
            self._store.forget(self._kid)


def _found(session: Session, kid: UUID, key_object: KeyObject) -> list[Object]:
    for key_id in key_object.key_ids(kid):
        if found := session.find(key_object.template | {Attribute.ID: key_id}):
            return found
    return []


def _is_kept(session: Session, kid: UUID, key_object: KeyObject) -> bool:
    """Tell whether the token destroys an object for nobody; it may be destroyed meanwhile."""
    try:
        found = [read(each, [Attribute.DESTROYABLE]) for each in _found(session, kid, key_object)]
    except PKCS11Error as error:
        if fault_of(error) is not Fault.KEY_GONE:
            raise
        return False
    return any(each.get(Attribute.DESTROYABLE) is False for each in found)


def _label(found: Object) -> str:
    try:
        return str(found[Attribute.LABEL])
    except PKCS11Error:  # not one of ours
        return ""


def _labelled(session: Session) -> Iterator[tuple[UUID, KeyObject]]:
    # Never with an empty template: one half-written object would end the search for ever.
    for object_class in _CLASSES:
        for found in session.find({Attribute.CLASS: object_class}):
            if _label(found).startswith(LABEL_PREFIX):
                named = kid_of(found[Attribute.ID])
                if named and named[0].bytes not in OWN_IDS:
                    yield named[0], _key_object(object_class, found, named[1])


def _key_object(object_class: ObjectClass, found: Object, suffix: bytes) -> KeyObject:
    is_secret = object_class is ObjectClass.SECRET_KEY
    return KeyObject(object_class, found[Attribute.KEY_TYPE] if is_secret else None, suffix)
