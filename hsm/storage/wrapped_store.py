"""Keys in the registry: made in the token, wrapped at once, unwrapped there when they are used."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast
from uuid import UUID

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from pkcs11 import Object, PKCS11Error

from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import PublicKey
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.canary import Canary
from hsm.cryptoki.handles import (
    Cek,
    Handle,
    Key,
    LaterHandle,
    PublicHandle,
    bare,
    bind,
    handle_of,
    temporary,
)
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.objects import PRIVATE, PUBLIC, KeyObject, secrets_of
from hsm.cryptoki.session import Session
from hsm.errors import BrokenSeal, KeyUnavailable, UnsupportedAlgorithm
from hsm.importing.ways import Unwrap
from hsm.messages import Blob, KeyRef, Made
from hsm.observer import Observer
from hsm.operations.session_keys import SessionKeys
from hsm.storage.bare import Unwrapping
from hsm.storage.bare_pairs import BarePairs
from hsm.storage.held_keys import HeldKeys, Unwrapped
from hsm.storage.keks import Kek
from hsm.storage.store import Material, Store

logger = logging.getLogger(__name__)

NO_KEK: Final = "the token has no key-encryption key"
SUBJECT: Final = "wrapped storage"
_LENGTH_BYTES: Final = 2
_MOST_WAYS: Final = 256


class WrappedStore(Store):
    """The keys that are blobs under one of ``keks``, the last of which encrypts new ones.

    What is to be wrapped, and what has been unwrapped, are session objects. Only the former are
    extractable, and they are gone before anybody is told of the key.
    """

    def __init__(
        self,
        templates: Templates,
        canary: Canary,
        keks: Mapping[UUID, Kek],
        held: HeldKeys,
        observer: Observer,
    ) -> None:
        self._templates = templates
        self._to_be_wrapped = replace(templates, to_be_wrapped=True)
        self._new_keys = SessionKeys(self._to_be_wrapped, canary)
        self._new_pairs = BarePairs(self._new_keys)
        self._canary = canary
        self.keks: Final = keks
        self._held = held
        self._ways: dict[KeySpec, Mapping[KeyObject, Unwrapping]] = {}
        self._observer = observer

    @property
    def kek(self) -> UUID | None:
        """Which key encrypts new ones, if there is any."""
        return next(reversed(tuple(self.keks)), None)

    def make(self, session: Session, ref: KeyRef, material: Material | None = None) -> Made:
        """See ``Store``."""
        with self._new(session, ref.spec, material) as keys:
            return self._made(ref, keys)

    def keep(self, ref: KeyRef, kek: Key, cek: Cek) -> Made:
        """See ``Store``; here they cross under the key-encryption key of the store alone."""
        return self._made(ref, Keys(kek.lent, self._canary, cek))

    def keep_unwrapped(
        self, session: Session, ref: KeyRef, unwrap: Unwrap, public: PublicKey | None
    ) -> Made:
        """See ``Store``."""
        made = bind(session, unwrap(**self._to_be_wrapped.unwrapped(ref.spec)))
        with temporary(made):
            if public is None:
                return self._made(ref, Keys(session, self._canary, (made,)))
            return self._wrapped(ref, session, [made], public)

    @contextmanager
    def lent(self, session: Session, ref: KeyRef, objects: Iterable[KeyObject]) -> Iterator[Keys]:
        """See ``Store``. Raises ``BrokenSeal`` if the row is not as we have left it."""
        unwrap = partial(self.unwrapped, ref=ref, is_held=True, asked=session)
        with self._held.lent(ref, unwrap) as handles:
            yield Keys.bound(session, self._canary, [(each, handles[each]) for each in objects])

    def require_destroyable(self, session: Session, ref: KeyRef) -> None:
        """See ``Store``: nothing keeps a row from going."""

    def destroy(self, session: Session, ref: KeyRef) -> None:
        """See ``Store``: that there is no row is what destroys it."""
        self.forget([ref.kid])

    def forget(self, kids: Iterable[UUID]) -> None:
        """Wipe what is unwrapped of those keys."""
        self._held.forget(kids)

    def keep_alive(self) -> None:
        """Use the session that holds what is unwrapped; if it has ended, all of that is gone."""
        self._held.keep_alive()

    def held(self) -> frozenset[UUID]:
        """Return which keys are unwrapped now."""
        return self._held.kids()

    def inventory(self, session: Session) -> Mapping[UUID, frozenset[KeyObject]]:
        """See ``Store``: what is kept here, the registry knows."""
        return {}

    def resealed(self, session: Session, ref: KeyRef, row: bytes) -> Blob:
        """Return the blob of ``ref`` sealed with another ``row``, once the seal of now is right."""
        kek, blob = self._require_sealed(session, ref)
        return replace(blob, seal=kek.seal(session, row, blob.octets))

    def rewrapped(self, session: Session, ref: KeyRef) -> Blob:
        """Return ``ref`` under the key that encrypts new ones, once its seal is right.

        In between it is a session object that can be wrapped, as a new one is.
        """
        old, blob = self._require_sealed(session, ref)
        arguments = dict(self._arguments(ref.spec, self._to_be_wrapped))
        parts, rest = _unpacked(blob.octets, len(arguments))
        with ExitStack() as stack:
            keys = [
                stack.enter_context(temporary(bind(session, old.unwrapped(session, part, **its))))
                for part, its in zip(parts, arguments.values(), strict=True)
            ]
            return self._blob(session, ref, keys, rest)

    def unwrapped(
        self,
        session: Session,
        ref: KeyRef,
        *,
        is_held: bool = False,
        asked: Session | None = None,
    ) -> Unwrapped:
        """Make the objects of a key, once its seal is right; they are to be destroyed.

        ``asked`` is the session that says so, if not the same: an operation that fails can leave a
        session unusable, which one that holds keys must not become.

        Those of a key that ``session`` holds cannot be read. Its public half is made later, by the
        first who uses it: a signature needs no more than its numbers.
        """
        made: dict[KeyObject, Any] = {}
        with _all_or_none(session, made):
            sealed = self._require_sealed(asked or session, ref)
            public = self._unwrap(session, ref.spec, made, sealed, is_held=is_held)
            handles = {name: Handle(handle_of(each)) for name, each in made.items()}
            if public is not None:
                make = partial(self._public_handle, spec=ref.spec, public=public, made=made)
                if is_held:
                    handles[PUBLIC] = LaterHandle(public, partial(self._held.added, session, make))
                else:
                    handles[PUBLIC] = PublicHandle(make(session), public)
        return Unwrapped(made, handles)

    def _public_handle(
        self, session: Session, spec: KeySpec, public: PublicKey, made: dict[KeyObject, Any]
    ) -> int:
        if PUBLIC not in made:
            made[PUBLIC] = bare(self._public(session, spec, public))
        return handle_of(made[PUBLIC])

    def _unwrap(
        self,
        session: Session,
        spec: KeySpec,
        made: dict[KeyObject, Any],
        sealed: tuple[Kek, Blob],
        *,
        is_held: bool,
    ) -> PublicKey | None:
        """Make what is not public; return the public numbers of a pair."""
        (kek, blob), ways = sealed, self._unwrappings(spec)
        parts, rest = _unpacked(blob.octets, len(ways))
        for (name, its), part in zip(ways.items(), parts, strict=True):
            if is_held:
                made[name] = kek.held(session, part, its)
            else:
                made[name] = bare(kek.unwrapped(session, part, **its.arguments))
        return cast(PublicKey, load_der_public_key(rest)) if rest else None

    def _unwrappings(self, spec: KeySpec) -> Mapping[KeyObject, Unwrapping]:
        """Return how to unwrap each object that is not public, which takes as long as to do it."""
        found = self._ways.get(spec)
        if found is None:
            arguments = self._arguments(spec, self._templates)
            found = {name: Unwrapping.of(its) for name, its in arguments}
            if len(self._ways) >= _MOST_WAYS:  # callers choose lengths
                self._ways.clear()
            self._ways[spec] = found
        return found

    def _require_sealed(self, session: Session, ref: KeyRef) -> tuple[Kek, Blob]:
        blob = ref.blob
        if blob is not None and blob.kek not in self.keks:
            raise KeyUnavailable("the token lacks the key-encryption key")
        if blob is None or not self.keks[blob.kek].is_sealed(
            session, ref.row, blob.octets, blob.seal
        ):
            logger.error("the row of key %s was changed by others: its seal is broken", ref.kid)
            self._observer.broke_seal()
            raise BrokenSeal
        return self.keks[blob.kek], blob

    def _new(
        self, session: Session, spec: KeySpec, material: Material | None
    ) -> AbstractContextManager[Keys]:
        makes = self._new_keys
        if spec.kind.is_pair:
            if material is None:
                return self._new_pairs.generated(session, spec)
            assert not isinstance(material, bytes | bytearray)  # noqa: S101  # it is of a pair
            return makes.imported_pair(session, spec, material)
        row = spec.algorithms[0]
        if isinstance(material, bytes | bytearray):
            return makes.imported(session, row, material)
        assert spec.bits is not None  # noqa: S101  # the schema gives every oct key a length
        return makes.generated(session, row, spec.bits // 8)

    def _made(self, ref: KeyRef, keys: Keys) -> Made:
        if ref.spec.kind.is_pair:
            return self._wrapped(ref, keys.session, [keys.private], keys.public.numbers)
        return self._wrapped(ref, keys.session, keys.secrets, None)

    def _wrapped(
        self, ref: KeyRef, session: Session, objects: Iterable[Key], public: PublicKey | None
    ) -> Made:
        blob = self._blob(session, ref, objects, _der(public))
        return Made(replace(ref, blob=blob), public)

    def _blob(self, session: Session, ref: KeyRef, objects: Iterable[Key], der: bytes) -> Blob:
        """Encrypt the objects of a key; ``der`` is its public half, if it is a pair."""
        if self.kek is None:
            raise UnsupportedAlgorithm.not_offered(SUBJECT, NO_KEK)
        kek = self.keks[self.kek]
        octets = _packed(map(kek.wrapped, objects)) + der
        return Blob(kek=kek.id, octets=octets, seal=kek.seal(session, ref.row, octets))

    @staticmethod
    def _arguments(
        spec: KeySpec, templates: Templates
    ) -> Iterator[tuple[KeyObject, dict[str, Any]]]:
        """Give how to unwrap each object of a key that is not public."""
        if spec.kind.is_pair:
            yield PRIVATE, templates.unwrapped(spec)
        else:
            row = spec.algorithms[0]
            for name, part in zip(secrets_of(row), row.parts, strict=True):
                yield name, templates.unwrapped_part(part)

    def _public(self, session: Session, spec: KeySpec, public: PublicKey) -> Object:
        return session.create_object(self._templates.imported_public(None, spec, public))


@contextmanager
def _all_or_none(session: Session, made: Mapping[KeyObject, Any]) -> Iterator[None]:
    """Destroy the objects that are ``made`` in one ``with`` block, if it fails."""
    try:
        yield
    except PKCS11Error:
        for each in made.values():
            session.destroy(each)
        raise


def _packed(parts: Iterable[bytes]) -> bytes:
    """Return wrapped keys, each behind its length."""
    return b"".join(len(part).to_bytes(_LENGTH_BYTES) + part for part in parts)


def _der(public: PublicKey | None) -> bytes:
    """Return a public half as SubjectPublicKeyInfo, nothing for a secret key."""
    if public is None:
        return b""
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _unpacked(octets: bytes, number: int) -> tuple[list[bytes], bytes]:
    """Return as many wrapped keys, and the public half in DER, if there is one."""
    parts = []
    for _ in range(number):
        end = _LENGTH_BYTES + int.from_bytes(octets[:_LENGTH_BYTES])
        parts.append(octets[_LENGTH_BYTES:end])
        octets = octets[end:]
    return parts, octets
