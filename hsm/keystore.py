"""Keys on the token, by kid: generate, import, load, destroy.

CKA_ID is the 16 bytes of the kid, for both halves. Nothing outside knows that a key is a token
object; a key's handle always comes from here.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from uuid import UUID

from pkcs11 import Attribute, Object, ObjectClass, PKCS11Error
from pkcs11.exceptions import FunctionFailed

from hsm.algorithms import CEK_WRAPPING, ContentEncryption, KeySpec
from hsm.canary import CANARY_IDS, Canary
from hsm.errors import KeyNotFound, TokenUnavailable
from hsm.faults import Fault, fault_of
from hsm.handles import Handle, HandleCache, Key
from hsm.material import PrivateKey, PublicKey
from hsm.session import Session
from hsm.templates import HALVES, LABEL_PREFIX, Templates, identity

Halves = frozenset[ObjectClass]

SECRET, PRIVATE, PUBLIC = HALVES

# SoftHSM can overlook what another process has just created; see ``softhsm``, and its issue 573.
_LOOKS: Final = 3
_PAUSE_SECONDS: Final = 0.02
_KID_BYTES: Final = 16


def halves_of(spec: KeySpec) -> tuple[ObjectClass, ...]:
    """Return the objects that make a whole key, those that can do harm first."""
    return (PRIVATE, PUBLIC) if spec.kind.is_pair else (SECRET,)


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
        secret = session.generate_key(
            spec.kind.key_type,
            spec.bits,
            **identity(kid),
            **self._templates.secret_generation(spec.algorithms),
        )
        self._remember(kid, SECRET, secret)
        return None

    def import_secret(self, session: Session, kid: UUID, spec: KeySpec, value: bytes) -> None:
        """Create a secret key from ``value``, which the caller has checked."""
        template = self._templates.imported_secret(kid, spec, value)
        self._remember(kid, SECRET, session.create_object(template))

    def import_pair(self, session: Session, kid: UUID, spec: KeySpec, key: PrivateKey) -> PublicKey:
        """Create both halves of ``key``, which the caller has checked; return the public one."""
        public = session.create_object(self._templates.imported_public(kid, spec, key))
        private = session.create_object(self._templates.imported_private(kid, spec, key))
        self._remember(kid, PRIVATE, private)
        return self._remember_public(kid, public)

    def store(self, kid: UUID, row: ContentEncryption, kek: Key, cek: Key) -> None:
        """Keep the session object ``cek`` as the key ``kid``, never extractable again.

        It crosses as an AES key wrap (RFC 3394) under ``kek``, which is a session object too.
        """
        stored = kek.unwrap_key(
            ObjectClass.SECRET_KEY,
            row.kind.key_type,
            kek.wrap_key(cek, mechanism=CEK_WRAPPING),
            **identity(kid),
            mechanism=CEK_WRAPPING,
            capabilities=self._templates.usages([row]),
            template=self._templates.secret([row]),
        )
        self._remember(kid, SECRET, stored)

    def load(self, session: Session, kid: UUID, half: ObjectClass) -> Key:
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
        for half in HALVES:
            for kid in _labelled(session, half):
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

    def _remember(self, kid: UUID, half: ObjectClass, created: Object) -> Handle:
        """Remember a new object, having read it back."""
        if created[Attribute.ID] != kid.bytes or created[Attribute.CLASS] is not half:
            raise FunctionFailed
        handle = Handle.of(created)
        self._handles.put(kid, half, handle)
        return handle

    def _remember_public(self, kid: UUID, created: Object) -> PublicKey:
        public = self._remember(kid, PUBLIC, created).public
        assert public is not None  # noqa: S101  # as in ``public``
        return public

    def _look(self, session: Session, kid: UUID, half: ObjectClass) -> Handle:
        # The first will do: SoftHSM sometimes finds one object twice.
        for found in self._find(session, kid, half):
            return Handle.of(found)
        raise KeyNotFound

    def _find(self, session: Session, kid: UUID, half: ObjectClass) -> list[Object]:
        """Search more than once before believing that there is nothing.

        The last word is a search after the canary has been found: before, the token may have been
        in trouble. Raises ``TokenUnavailable`` if the canary is not found either.
        """
        template = {Attribute.CLASS: half, Attribute.ID: kid.bytes}
        for _ in range(_LOOKS):
            if found := session.find(template):
                return found
            self._announce_change()
            time.sleep(_PAUSE_SECONDS)
        if not self._canary.is_found(session):
            raise TokenUnavailable("the token does not show its keys", cause="canary")
        return session.find(template)


def _label(found: Object) -> str:
    try:
        return str(found[Attribute.LABEL])
    except (PKCS11Error, UnicodeDecodeError):  # not one of ours
        return ""


def _labelled(session: Session, half: ObjectClass) -> Iterator[UUID]:
    # Never with an empty template: one half-written object would end the search for ever.
    for found in session.find({Attribute.CLASS: half}):
        if _label(found).startswith(LABEL_PREFIX):
            key_id = found[Attribute.ID]
            if len(key_id) == _KID_BYTES and key_id not in CANARY_IDS:
                yield UUID(bytes=key_id)
