"""Making keys and ending them.

A key of the token and its row change in two phases; one that the registry keeps is there, or gone,
by one commit. A key that can be had back is only hidden, and ``recovery`` destroys it when its time
is over.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import hsm
from app import current_request
from app.errors import BadRequest, Forbidden, RequestInProgress, RequestReused
from app.idempotency import IdempotentRequest
from app.jwk.key_type import Material
from app.keys.access import (
    Existing,
    KeysOfMessage,
    find,
    find_lasting,
    find_of_message,
    require_fit,
    require_not_needed,
    require_on_curve,
)
from app.keys.description import describe_all, describe_one, signs
from app.keys.general.selection import recipients_of
from app.keys.phases.making import Making
from app.keys.phases.one_commit import OneCommit
from app.keys.phases.two_phases import TwoPhases
from app.keys.quota import Quota
from app.registry import (
    LASTING,
    VISIBLE,
    AlreadyRequested,
    Key,
    Origin,
    Publication,
    Registry,
    Repetition,
    Residency,
    State,
    Tagging,
)
from app.rights import Principal, Right
from app.schemas.keys import KeyRequest
from app.schemas.labels import Labels, require_to_come
from app.schemas.messages.addressed import Addressed, names_of
from app.schemas.messages.received_header import Header
from hsm import Hsm, KeyNotFound, KeyRef, KeySpec, Made, Storage

_FIRST_ANSWER_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCreation:
    """How principals make keys and destroy them.

    A new pair that signs is published while there is room in ``publication``, if there is one.
    Keys that say nothing of it can be had back for ``destroy_after``, if there is such a time, and
    are kept in ``storage``.

    Every method raises ``KeyNotFound``, then ``Forbidden``, then ``CryptoFailure`` if the key does
    not fit; ``TokenUnavailable`` or ``RegistryUnavailable`` if one of them cannot answer now.
    """

    registry: Registry
    hsm: Hsm
    phases: TwoPhases
    one_commit: OneCommit
    publication: Publication | None
    quota: Quota
    destroy_after: timedelta | None
    storage: Storage = Storage.TOKEN

    def unwrap(
        self,
        principal: Principal,
        header: Header,
        encrypted_key: bytes,
        idempotent: IdempotentRequest | None = None,
    ) -> dict[str, Any]:
        """Keep the CEK of ``encrypted_key`` as a key; return its description, or the first one."""

        def unwrap() -> dict[str, Any]:
            key = find_of_message(self.registry, principal, header, Right.UNWRAP)
            return self._unwrap(principal, key, header, encrypted_key, idempotent)

        return self.once(idempotent, unwrap)

    def unwrap_general(
        self,
        principal: Principal,
        recipients: Sequence[Addressed],
        kid: str | None,
        idempotent: IdempotentRequest | None = None,
    ) -> dict[str, Any]:
        """Keep the CEK for one of several recipients; see ``unwrap``."""

        def unwrap() -> dict[str, Any]:
            keys = KeysOfMessage(self.registry, principal, names_of(recipients, kid))
            key, one = recipients_of(keys, recipients, kid, Right.UNWRAP)[0]
            return self._unwrap(principal, key, one.usable_header, one.octets, idempotent)

        return self.once(idempotent, unwrap)

    def destroy(self, principal: Principal, kid: str) -> None:
        """Destroy every object of a key, whichever half ``kid`` names, now or when its time comes.

        Raises ``CryptoFailure`` if the token destroys it for nobody: then it stays as it is.
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
        # While the token is away, or keeps it whoever asks, the key stays as it is.
        self.hsm.require_destroyable(key.ref)
        with self.phases.under_way():
            if not self.registry.mark_destroyed(key.kid, states):
                raise KeyNotFound
            current_request.change(destroyed=str(key.kid))  # whatever is answered
            self.phases.destroy_marked(key.ref)
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
        """Generate keys, or import one that the service is shown; return what is answered."""
        origin = Origin.GENERATED if request.material is None else Origin.IMPORTED
        keys = [self.new_key(principal, request, origin) for _ in range(request.count or 1)]
        self.quota.require(principal, made=len(keys))
        self.hsm.offers()  # fail before inserting a row if the token is unavailable
        if request.prove is not None:
            self.hsm.in_lane(request.prove)
        tagging = self.tagging(keys[0], request.labels)
        describe = describe_one if request.count is None else describe_all
        making = Making(
            keys=keys,
            make=partial(self._made, material=request.material),
            tagging=tagging,
            request=idempotent,
            answer=partial(describe, keys),
        )
        return self.add(making)

    def add(self, making: Making) -> dict[str, Any]:
        """Make keys where they are to be kept, all or none; return the answer.

        Raises ``KeyNotFound`` if the wrapping key is gone.
        """
        adding = self.one_commit if making.keys[0].storage is Storage.WRAPPED else self.phases
        answered = adding.add(making)
        current_request.made(*(key.kid for key in making.keys))
        return answered

    def new_key(self, principal: Principal, request: KeyRequest, origin: Origin) -> Key:
        """Return a key of that origin that is to be made; a generated pair has two kids.

        Raises ``BadRequest`` if its end has come, as it may have when a request is repeated.
        """
        spec, labels = request.spec, request.labels
        if labels.expires_at is not None:
            require_to_come(labels.expires_at, "expires")
        is_pair_of_two = origin is Origin.GENERATED and spec.kind.is_pair
        return Key(
            kid=uuid4(),
            kid_public=uuid4() if is_pair_of_two else None,
            owner=principal,
            spec=spec,
            origin=origin,
            residency=Residency.PROCESS if origin is Origin.IMPORTED else Residency.TOKEN,
            alias=labels.alias,
            name=labels.name,
            expires_at=labels.expires_at,
            destroy_after=labels.destroy_after,
            storage=request.storage or self.storage,
        )

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

    def _made(self, ref: KeyRef, *, material: Material | None) -> Made:
        """Return a key that the token has generated, or taken in and tried."""
        if material is None:
            return self.hsm.generate(ref)
        made = self.hsm.import_key(ref, material)
        if not self.hsm.works(made.ref):
            raise BadRequest("The key material is refused: a trial of it in the token failed")
        return made

    def _unwrap(
        self,
        principal: Principal,
        key: Key,
        header: Header,
        encrypted_key: bytes,
        idempotent: IdempotentRequest | None,
    ) -> dict[str, Any]:
        require_creator(principal)
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
            storage=self.storage,
        )
        self.quota.require(principal)

        def make(new: KeyRef) -> Made:
            with Existing(self.registry, key):
                return self.hsm.unwrap(key.ref, alg, enc, encrypted_key, new, header.agreement)

        answer = partial(describe_one, [cek])
        return self.add(
            Making(keys=[cek], make=make, tagging=Tagging(), request=idempotent, answer=answer)
        )

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
                _note(first)
                if first.is_gone:
                    raise KeyNotFound
                return dict(first.answer)
            if time.monotonic() > deadline:
                raise RequestInProgress
            time.sleep(0.05)
        return None


def _note(first: Repetition) -> None:
    """Have the logs name the keys of the first answer."""
    if len(first.kids) == 1:
        current_request.name(kid=first.kids[0])
    else:
        current_request.name_several(first.kids, first.answer["keys"][0].get("alg"))


def require_creator(principal: Principal) -> None:
    """Raise ``Forbidden`` unless ``principal`` may make keys."""
    if not principal.may_create:
        raise Forbidden
