"""Making keys and ending them: a row and its objects change in two phases.

Create: a pending row · the objects · the active row. Destroy: the row is marked · the objects go ·
the row goes. Whoever dies in between leaves what ``recovery`` finishes or undoes. A key that can
be had back is only hidden, and ``recovery`` destroys it when its time is over.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import hsm
from app import current_request
from app.errors import (
    BadRequest,
    Forbidden,
    RegistryUnavailable,
    RequestInProgress,
    RequestReused,
)
from app.idempotency import IdempotentRequest
from app.jwk import write_public
from app.keys.access import (
    KeysOfMessage,
    existing,
    find,
    find_lasting,
    find_of_message,
    require_fit,
    require_not_needed,
    require_on_curve,
)
from app.keys.description import describe_new, signs
from app.keys.general.selection import recipients_of
from app.keys.quota import Quota
from app.registry import (
    LASTING,
    VISIBLE,
    AlreadyRequested,
    Key,
    Origin,
    Publication,
    Registry,
    Residency,
    State,
    Tagging,
)
from app.rights import Principal, Right
from app.schemas.keys import KeyRequest
from app.schemas.labels import Labels
from app.schemas.messages.addressed import Addressed, names_of
from app.schemas.messages.received_header import Header
from hsm import Hsm, HsmError, KeyNotFound, KeyRef, KeySpec, Made, PrivateKey

Record = Callable[[UUID], None]
"""Called with each kid whose objects are destroyed, before its row goes."""

_RECOVERY_WAIT_SECONDS: Final = 2.0
_FIRST_ANSWER_SECONDS: Final = 10.0


def no_record(_kid: UUID) -> None:
    """Write nothing down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPhases:
    """The registry and the token, which cannot be changed in one transaction.

    ``lock`` is held, shared, while a row and its objects differ. The kernel frees it at death, so
    that whoever holds it alone knows that nothing is under way on this host.
    """

    registry: Registry
    hsm: Hsm
    lock: Path

    @contextmanager
    def creation(
        self, key: Key, tagging: Tagging, request: IdempotentRequest | None
    ) -> Iterator[dict[str, Any]]:
        """Add ``key`` as pending for one ``with`` block, which activates it; undo after errors.

        Gives what to answer then.
        """
        answer = partial(describe_new, key)
        with self.under_way():
            is_published = self.registry.insert(
                key,
                publication=tagging.publication,
                tags=tagging.tags,
                request=request,
                answer=answer,
            )
            try:
                tagging.require(is_published=is_published)
                yield answer(is_published)
            except BaseException:
                with suppress(HsmError, RegistryUnavailable):  # then ``reconcile`` will
                    self.undo(key.ref)
                raise

    def under_way(self) -> AbstractContextManager[None]:
        """Keep ``recovery`` out for one ``with`` block; 503 while it is at work."""
        return hsm.file_lock(self.lock, shared=True, wait_seconds=_RECOVERY_WAIT_SECONDS)

    def undo(self, ref: KeyRef, record: Record = no_record) -> None:
        """Destroy a key, however far its creation or destruction got."""
        self.registry.abandon(ref.kid)
        self.finish(ref, record)

    def finish(self, ref: KeyRef, record: Record) -> None:
        """Destroy the objects of a key whose row is marked, and remove the row."""
        self.hsm.destroy(ref)
        record(ref.kid)  # a row that stays is found again, and so is one without a record
        self.registry.remove(ref.kid)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCreation:
    """How principals make keys and destroy them.

    A new pair that signs is published while there is room in ``publication``, if there is one.
    Keys that say nothing of it can be had back for ``destroy_after``, if there is such a time.

    Every method raises ``KeyNotFound``, then ``Forbidden``, then ``CryptoFailure`` if the key does
    not fit; ``TokenUnavailable`` or ``RegistryUnavailable`` if one of them cannot answer now.
    """

    registry: Registry
    hsm: Hsm
    phases: TwoPhases
    publication: Publication | None
    quota: Quota
    destroy_after: timedelta | None

    def unwrap(
        self,
        principal: Principal,
        header: Header,
        encrypted_key: bytes,
        idempotent: IdempotentRequest | None = None,
    ) -> dict[str, Any]:
        """Keep the CEK of ``encrypted_key`` as a key; return its description, or the first one."""
        key = find_of_message(self.registry, principal, header, Right.UNWRAP)
        return self._unwrap_once(principal, key, header, encrypted_key, idempotent)

    def unwrap_general(
        self,
        principal: Principal,
        recipients: Sequence[Addressed],
        kid: str | None,
        idempotent: IdempotentRequest | None = None,
    ) -> dict[str, Any]:
        """Keep the CEK for one of several recipients; see ``unwrap``."""
        keys = KeysOfMessage(self.registry, principal, names_of(recipients, kid))
        key, one = recipients_of(keys, recipients, kid, Right.UNWRAP)[0]
        return self._unwrap_once(principal, key, one.usable_header, one.octets, idempotent)

    def _unwrap_once(
        self,
        principal: Principal,
        key: Key,
        header: Header,
        encrypted_key: bytes,
        idempotent: IdempotentRequest | None,
    ) -> dict[str, Any]:
        require_creator(principal)
        return self.once(
            idempotent, partial(self._unwrap, principal, key, header, encrypted_key, idempotent)
        )

    def destroy(self, principal: Principal, kid: str) -> None:
        """Destroy every object of a key, whichever half ``kid`` names, now or when its time comes.

        A key that can be had back until then is only hidden: the token is not asked.
        """
        key = find(self.registry, principal, kid, Right.DESTROY)
        require_not_needed(self.registry, key)
        whole = self.registry.whole(key.kid)
        if whole is None:  # it has been deleted meanwhile, and may be had back
            raise KeyNotFound
        after = whole.destroy_after or self.destroy_after
        if after is None:
            self._destroy(key, VISIBLE)
        else:
            self._postpone(key, after)

    def destroy_at_once(self, principal: Principal, kid: str) -> None:
        """Destroy every object of a key now, even if it could be had back."""
        key = find_lasting(self.registry, principal, kid, Right.DESTROY)
        require_not_needed(self.registry, key)
        self._destroy(key, LASTING)

    def _postpone(self, key: Key, after: timedelta) -> None:
        destroy_at = datetime.now(UTC) + after
        if not self.registry.postponed.begin(key.kid, destroy_at):
            raise KeyNotFound
        current_request.change(destroy_at=destroy_at.isoformat())

    def _destroy(self, key: Key, states: Collection[State]) -> None:
        self.hsm.offers()  # while the token is away the key stays as it is
        with self.phases.under_way():
            if not self.registry.mark_destroyed(key.kid, states):
                raise KeyNotFound
            current_request.change(destroyed=str(key.kid))  # whatever is answered
            self.hsm.destroy(key.ref)
            # Until then the janitor knows of it, and writes the line that is missing.
            current_request.when_audited(partial(self.registry.remove, key.kid))

    def take_back(self, kid: UUID) -> None:
        """Undo the creation of a key that nobody has been told of, nor will be."""
        key = self.registry.whole(kid, (*VISIBLE, State.WRAPPING))
        if key is not None:
            with self.phases.under_way():
                self.registry.idempotency.forget(key.kid)
                self.phases.undo(key.ref)

    def make(
        self, principal: Principal, request: KeyRequest, idempotent: IdempotentRequest | None
    ) -> dict[str, Any]:
        """Generate a key, or import one that the service is shown; return its description."""
        spec, material = request.spec, request.material
        key = Key(
            kid=uuid4(),
            kid_public=uuid4() if spec.kind.is_pair and material is None else None,
            owner=principal,
            spec=spec,
            origin=Origin.GENERATED if material is None else Origin.IMPORTED,
            residency=Residency.TOKEN if material is None else Residency.PROCESS,
            alias=request.labels.alias,
            name=request.labels.name,
            expires_at=request.labels.expires_at,
            destroy_after=request.labels.destroy_after,
        )
        self.quota.require(principal)
        self.hsm.offers()  # fail before inserting a row if the token is unavailable
        if request.prove is not None:
            self.hsm.in_lane(request.prove)
        with self.phases.creation(key, self.tagging(key, request.labels), idempotent) as answer:
            made = self._objects(key.ref, material)
            if material is not None and not self.hsm.works(key.ref):
                raise BadRequest("The key material is refused: a trial of it in the token failed")
            self.registry.activate(made.ref, write_public(made.public) if made.public else None)
        current_request.made(key.kid)
        return answer

    def tagging(self, key: Key, labels: Labels) -> Tagging:
        """Return how to tag a new key; a pair that signs is published, if there is room."""
        tags, publication = frozenset(labels.tags), self.publication
        if publication is None:
            return Tagging(tags=tags)
        is_asked = publication.tag in tags
        is_usual = publication.takes_new and key.kid_public is not None and signs(key.spec)
        return Tagging(
            tags=tags - {publication.tag},
            publication=publication if is_asked or is_usual else None,
            is_asked=is_asked,
        )

    def _objects(self, ref: KeyRef, material: bytes | PrivateKey | None) -> Made:
        return self.hsm.generate(ref) if material is None else self.hsm.import_key(ref, material)

    def _unwrap(
        self,
        principal: Principal,
        key: Key,
        header: Header,
        encrypted_key: bytes,
        idempotent: IdempotentRequest | None,
    ) -> dict[str, Any]:
        alg, enc = header.alg, header.enc
        require_fit(self.hsm, key, alg)
        require_on_curve(key, header.agreement)
        residency = self.hsm.offers()[alg].with_enc(enc).residency
        bits = 8 * hsm.CONTENT_ENCRYPTIONS[enc].key_bytes
        cek = Key(
            kid=uuid4(),
            kid_public=None,
            owner=principal,
            spec=KeySpec(kty="oct", alg=enc, bits=bits),
            origin=Origin.UNWRAPPED,
            residency=Residency(residency),
        )
        self.quota.require(principal)
        with self.phases.creation(cek, Tagging(), idempotent) as answer:
            with existing(self.registry, key):
                made = self.hsm.unwrap(key.ref, alg, enc, encrypted_key, cek.ref, header.agreement)
            self.registry.activate(made.ref, None)
        current_request.made(cek.kid)
        return answer

    def once(
        self, idempotent: IdempotentRequest | None, create: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return what was answered to the same request before, or what ``create`` returns."""
        if idempotent is None:
            return create()
        answer = self._first_answer(idempotent)
        if answer is not None:
            return answer
        try:
            return create()
        except AlreadyRequested:  # by another one, at the same time
            answer = self._first_answer(idempotent)
        if answer is None:  # and in vain
            raise RequestInProgress
        return answer

    def _first_answer(self, idempotent: IdempotentRequest) -> dict[str, Any] | None:
        deadline = time.monotonic() + _FIRST_ANSWER_SECONDS
        while (first := self.registry.idempotency.find(idempotent)) is not None:
            if first.fingerprint != idempotent.fingerprint:
                raise RequestReused
            if first.is_made:
                current_request.name(kid=first.answer["kid"])
                if first.is_gone:
                    raise KeyNotFound
                return dict(first.answer)
            if time.monotonic() > deadline:
                raise RequestInProgress
            time.sleep(0.05)
        return None


def require_creator(principal: Principal) -> None:
    """Raise ``Forbidden`` unless ``principal`` may make keys."""
    if not principal.may_create:
        raise Forbidden
