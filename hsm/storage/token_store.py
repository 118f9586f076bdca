"""Keys on the token, by kid: generate, import, load, destroy.

CKA_ID is the 16 bytes of the kid, for all objects of the key (``halves``). Nothing outside knows
that a key is a token object; a key's handle always comes from here.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from uuid import UUID

from pkcs11 import Attribute, Object, ObjectClass, PKCS11Error
from pkcs11.exceptions import FunctionFailed

from hsm.algorithms.families import CEK_WRAPPING, ContentEncryption
from hsm.algorithms.keyspec import KeySpec
from hsm.cryptoki.attributes import LABEL_PREFIX, Templates, identity
from hsm.cryptoki.canary import CANARY_IDS, Canary
from hsm.cryptoki.faults import Fault, fault_of
from hsm.cryptoki.handles import Handle, HandleCache, Key
from hsm.cryptoki.material import PrivateKey, PublicKey
from hsm.cryptoki.objects import HALVES, PRIVATE, PUBLIC, Half, halves_of, secrets_of
from hsm.cryptoki.session import Session
from hsm.errors import Cause, KeyNotFound, TokenUnavailable
from hsm.operations.content import Cek

Halves = frozenset[Half]

# SoftHSM can overlook what another process has just created; see ``softhsm``, and its issue 573.
_LOOKS: Final = 3
_PAUSE_SECONDS: Final = 0.02
_KID_BYTES: Final = 16
_CLASSES: Final = (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)


class Keystore:
    """The keys of one token during one epoch."""

    def __init__(
        self, templates: Templates, canary: Canary, announce_change: Callable[[], None]
    ) -> None:
        self._templates = templates
        self._canary = canary
        self._announce_change = announce_change
        self._handles = HandleCache()

    def generate(self, session: Session, kid: UUID, spec: KeySpec) -> PublicKey | None:
        """Make a key inside the token; return the public half of a pair, read back from there."""
        if spec.kind.is_pair:
            return self._generate_pair(session, kid, spec)
        assert spec.bits is not None  # noqa: S101  # the schema gives every oct key a length
        (row,) = spec.algorithms
        shares = row.shares(bytes(spec.bits // 8))
        for half, part, share in zip(secrets_of(row), row.parts, shares, strict=True):
            made = session.generate_key(
                part.kind.key_type,
                8 * len(share),
                **identity(kid),
                **self._templates.secret_generation([part]),
            )
            self._remember(kid, half, made)
        return None

    def import_secret(self, session: Session, kid: UUID, spec: KeySpec, value: bytes) -> None:
        """Create a secret key from ``value``, which the caller has checked."""
        (row,) = spec.algorithms
        for half, part, share in zip(secrets_of(row), row.parts, row.shares(value), strict=True):
            template = self._templates.imported_secret(kid, part, share)
            self._remember(kid, half, session.create_object(template))
            share[:] = bytes(len(share))

    def import_pair(self, session: Session, kid: UUID, spec: KeySpec, key: PrivateKey) -> PublicKey:
        """Create both halves of ``key``, which the caller has checked; return the public one."""
        public = session.create_object(self._templates.imported_public(kid, spec, key))
        private = session.create_object(self._templates.imported_private(kid, spec, key))
        self._remember(kid, PRIVATE, private)
        return self._remember_public(kid, public)

    def store(self, kid: UUID, row: ContentEncryption, kek: Key, cek: Cek) -> None:
        """Keep the session objects ``cek`` as the key ``kid``, never extractable again.

        They cross as an AES key wrap (RFC 3394) under ``kek``, which is a session object too.
        """
        for half, part, made in zip(secrets_of(row), row.parts, cek, strict=True):
            stored = kek.unwrap_key(
                ObjectClass.SECRET_KEY,
                part.kind.key_type,
                kek.wrap_key(made, mechanism=CEK_WRAPPING),
                **identity(kid),
                mechanism=CEK_WRAPPING,
                capabilities=self._templates.usages([part]),
                template=self._templates.secret([part]),
            )
            self._remember(kid, half, stored)

    def load(self, session: Session, kid: UUID, half: Half) -> Key:
        """Return that half of ``kid``, bound to ``session``.

        Raises ``KeyNotFound`` only if the token shows its canary to the same session now: a
        token in trouble finds nothing and says CKR_OK. Else ``TokenUnavailable``.
        """
        handle = self._handles.get(kid, half)
        if handle is None:
            handle = self._look(session, kid, half)
            self._handles.put(kid, half, handle)
        return Key(session, handle)

    def public(self, session: Session, kid: UUID) -> PublicKey:
        """Return the public half of ``kid`` as a key, read from the token once in each epoch."""
        public = self.load(session, kid, PUBLIC).public
        assert public is not None  # noqa: S101  # ``Handle.of`` reads that of every public half
        return public

    def destroy(self, session: Session, kid: UUID, spec: KeySpec) -> None:
        """Destroy every object of ``kid``, the private one first; absence is success.

        Absence is believed only of a token that shows its canary. Else ``TokenUnavailable``.
        """
        self.forget(kid)
        for half in halves_of(spec):
            for found in self._find(session, kid, half):
                try:
                    session.destroy(found)
                except PKCS11Error as error:
                    if fault_of(error) is not Fault.KEY_GONE:
                        raise

    def forget(self, kid: UUID) -> None:
        """Drop what is remembered of ``kid``; the next use looks for it anew."""
        self._handles.drop(kid, HALVES)

    def inventory(self, session: Session) -> Mapping[UUID, Halves]:
        """Return the kids of all objects that carry our label, each with its halves."""
        self._announce_change()
        kids: dict[UUID, Halves] = {}
        for kid, half in _labelled(session):
            kids[kid] = kids.get(kid, frozenset()) | {half}
        return kids

    def _generate_pair(self, session: Session, kid: UUID, spec: KeySpec) -> PublicKey:
        public, private = session.generate_keypair(
            spec.kind.key_type,
            spec.bits,
            **identity(kid),
            **self._templates.pair_generation(spec),
        )
        self._remember(kid, PRIVATE, private)
        return self._remember_public(kid, public)

    def _remember(self, kid: UUID, half: Half, created: Object) -> Handle:
        """Remember a new object, having read it back."""
        meant = {Attribute.ID: kid.bytes} | half.template
        if any(created[name] != value for name, value in meant.items()):
            raise FunctionFailed
        handle = Handle.of(created)
        self._handles.put(kid, half, handle)
        return handle

    def _remember_public(self, kid: UUID, created: Object) -> PublicKey:
        public = self._remember(kid, PUBLIC, created).public
        assert public is not None  # noqa: S101  # as in ``public``
        return public

    def _look(self, session: Session, kid: UUID, half: Half) -> Handle:
        # The first will do: SoftHSM sometimes finds one object twice.
        for found in self._find(session, kid, half):
            return Handle.of(found)
        raise KeyNotFound

    def _find(self, session: Session, kid: UUID, half: Half) -> list[Object]:
        """Search more than once before believing that there is nothing.

        The last word is a search after the canary has been found: before, the token may have been
        in trouble. Raises ``TokenUnavailable`` if the canary is not found either.
        """
        template = half.template | {Attribute.ID: kid.bytes}
        for _ in range(_LOOKS):
            if found := session.find(template):
                return found
            self._announce_change()
            time.sleep(_PAUSE_SECONDS)
        if not self._canary.is_found(session):
            raise TokenUnavailable("the token does not show its keys", cause=Cause.CANARY)
        return session.find(template)


def _label(found: Object) -> str:
    try:
        return str(found[Attribute.LABEL])
    except (PKCS11Error, UnicodeDecodeError):  # not one of ours
        return ""


def _labelled(session: Session) -> Iterator[tuple[UUID, Half]]:
    # Never with an empty template: one half-written object would end the search for ever.
    for object_class in _CLASSES:
        for found in session.find({Attribute.CLASS: object_class}):
            if _label(found).startswith(LABEL_PREFIX):
                key_id = found[Attribute.ID]
                if len(key_id) == _KID_BYTES and key_id not in CANARY_IDS:
                    yield UUID(bytes=key_id), _half(object_class, found)


def _half(object_class: ObjectClass, found: Object) -> Half:
    is_secret = object_class is ObjectClass.SECRET_KEY
    return Half(object_class, found[Attribute.KEY_TYPE] if is_secret else None)
