"""Managing key sets: make, change, list, read, rotate, revoke, grant, destroy."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple, Self
from uuid import UUID, uuid4

from app import current_request
from app.audit import AuditLog
from app.duration import write_duration
from app.errors import BadRequest, Forbidden, KeySetTaken, RegistryUnavailable
from app.keys.catalogue import require_grantee
from app.keys.creation import KeyCreation, require_creator
from app.keys.description import signs
from app.keys.quota import Quota
from app.keys.sets.description import describe_set
from app.keys.sets.rotation import Counts, Rotation
from app.keys.sets.versions import VersionCreation
from app.kid import ALIAS_FORM, is_alias, is_kid
from app.registry import KeySet, Overtaken, Policy, Publication, Registry, State, VersionState
from app.rights import Principal, Right
from app.schemas.keysets import KeySetRequest
from hsm import CryptoFailure, KeyNotFound, KeyRef, TokenUnavailable

_ATTEMPTS: Final = 5


class Page(NamedTuple):
    """Key sets, and the name after which the next page begins, if there is one."""

    keysets: list[dict[str, Any]]
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySetCatalogue:
    """What principals do with key sets.

    Every method that names one raises ``KeyNotFound``, then ``Forbidden``: who has no right to it
    is not told that it is there. Keys of one that is destroyed can be had back for
    ``destroy_after``.
    """

    registry: Registry
    rotation: Rotation
    quota: Quota
    destroy_after: timedelta | None

    @classmethod
    def of(
        cls,
        creation: KeyCreation,
        audit_log: AuditLog | None,
        *,
        max_age: timedelta,
        publication: Publication,
        counts: Counts | None = None,
    ) -> Self:
        """Return one whose keys are made as all others; see ``Rotation``."""
        phases = creation.phases
        return cls(
            registry=creation.registry,
            rotation=Rotation(
                registry=creation.registry,
                creation=VersionCreation(phases=phases, publication=publication),
                audit_log=audit_log,
                lock=phases.lock.with_name("rotation.lock"),
                max_age=max_age,
                counts=counts,
            ),
            quota=creation.quota,
            destroy_after=creation.destroy_after,
        )

    def put(self, principal: Principal, name: str, request: KeySetRequest) -> dict[str, Any]:
        """Make a key set with its first version, or change its policy and its tags.

        Raises ``KeySetTaken`` if there is one of that name, of other keys or of somebody else, and
        ``BadRequest`` for a policy that verifiers could not follow.
        """
        if not is_alias(name):
            raise BadRequest(f"The name of a key set must be {ALIAS_FORM}")
        policy = None if request.policy is None else Policy(**request.policy)
        self._require_slow(policy)
        for _ in range(_ATTEMPTS):
            with suppress(KeyNotFound):  # it has been destroyed meanwhile
                if self.registry.keysets.find(name) is None:
                    with suppress(KeySetTaken):  # by another request, at the same time
                        return self._make(principal, name, request, policy)
                return self._change(principal, name, request, policy)
        raise RegistryUnavailable

    def _make(
        self, principal: Principal, name: str, request: KeySetRequest, policy: Policy | None
    ) -> dict[str, Any]:
        require_creator(principal)
        self.quota.require(principal)
        creation, labels = self.rotation.creation, request.key.labels
        publication, now = creation.publication, datetime.now(UTC)
        is_asked = publication.tag in labels.tags
        is_usual = publication.takes_new and signs(request.key.spec)
        rotates_at = None if policy is None else now + policy.every
        keyset = KeySet(
            id=uuid4(),
            name=name,
            owner=principal,
            spec=request.key.spec,
            policy=policy,
            is_published=request.key.spec.kind.is_pair and (is_asked or is_usual),
            current_kid=uuid4(),
            destroy_after=labels.destroy_after,
            rotates_at=rotates_at,
            due_at=rotates_at and rotates_at - self.rotation.ahead(policy),
        )
        key = creation.new_key(keyset, keyset.current_kid)
        tags = set(labels.tags) - {publication.tag}
        complete = partial(self.registry.keysets.steps.add, keyset, tag_names=tags)
        creation.make(key, complete, is_published=keyset.is_published)
        current_request.change(keyset=name, version=str(key.kid), **_audited(policy))
        return self._described(name)

    def _change(
        self, principal: Principal, name: str, request: KeySetRequest, policy: Policy | None
    ) -> dict[str, Any]:
        try:
            self.find(principal, name, Right.MANAGE)
        except (KeyNotFound, Forbidden):
            require_creator(principal)  # who could take no name is not told which ones are
            if self.registry.keysets.find(name) is None:
                raise KeyNotFound from None
            raise KeySetTaken from None
        labels = request.key.labels
        tags = request.tags and set(request.tags) - {self.rotation.creation.publication.tag}

        def change(keyset: KeySet) -> None:
            is_same = keyset.spec == request.key.spec
            if not is_same or keyset.destroy_after != labels.destroy_after:
                raise KeySetTaken
            times = self._times(keyset, policy)
            self.registry.keysets.steps.change(keyset, policy, tags, **times)

        self._step(principal, name, Right.MANAGE, change)
        current_request.change(keyset=name, **_audited(policy))
        return self._described(name)

    def _times(self, keyset: KeySet, policy: Policy | None) -> dict[str, datetime | None]:
        """Return when a set rotates that follows ``policy`` from now on.

        What is under way stays as it is: its next version has been published already.
        """
        if keyset.next_kid is not None or keyset.is_urgent:
            return {"rotates_at": keyset.rotates_at, "due_at": keyset.due_at}
        if policy is None:
            return {"rotates_at": None, "due_at": None}
        now, current = datetime.now(UTC), keyset.version(keyset.current_kid)
        since = (current and current.current_at) or now
        rotates_at = max(since + policy.every, now + self.rotation.ahead(policy))
        return {"rotates_at": rotates_at, "due_at": rotates_at - self.rotation.ahead(policy)}

    def read(self, principal: Principal, name: str) -> dict[str, Any]:
        """Return everything that is known of a key set."""
        keyset = self.find(principal, name, Right.READ)
        return describe_set(keyset, self.registry.tags.of(keyset.id))

    def page(self, principal: Principal, *, after: str, limit: int) -> Page:
        """Return those key sets that the caller may read, by their names."""
        reader = None if principal.may_on_every_key(Right.READ) else str(principal)
        found = self.registry.keysets.page(reader, after=after, limit=limit + 1)
        shown = found[:limit]
        tags = self.registry.tags.of_all([keyset.id for keyset in shown])
        told = [describe_set(keyset, tags.get(keyset.id, [])) for keyset in shown]
        return Page(told, shown[-1].name if len(found) > limit else None)

    def rotate(self, principal: Principal, name: str, at: datetime | None) -> dict[str, Any]:
        """Rotate as soon as a new version has been published for long enough, or ``at``."""

        def rotate(keyset: KeySet) -> None:
            now = datetime.now(UTC)
            version = keyset.version(keyset.next_kid)
            published_at = (version and version.published_at) or now
            ahead = self.rotation.ahead(keyset.policy)
            rotates_at = max(at or now, published_at + ahead)
            due_at = rotates_at if version else rotates_at - ahead
            self.registry.keysets.steps.schedule(keyset, rotates_at=rotates_at, due_at=due_at)
            current_request.change(keyset=name, rotates_at=rotates_at.isoformat())

        self._step(principal, name, Right.MANAGE, rotate)
        return self._described(name)

    def revoke(
        self, principal: Principal, name: str, kid: UUID, *, is_followed: bool = True
    ) -> dict[str, Any]:
        """Say that others may have a version: it is not published any more, and makes nothing new.

        If it is the current one, the next takes its place at once; if there is none, it is made.
        What cannot be done now, or is not ``is_followed`` here, the service does when it can.
        Raises ``CryptoFailure`` if it is none of the set.
        """

        def revoke(keyset: KeySet) -> None:
            version = keyset.version(kid)
            if version is None:
                raise CryptoFailure("The key set has no such version")
            if version.state is VersionState.COMPROMISED:
                return
            tag = self.rotation.creation.publication.tag
            steps = self.registry.keysets.steps
            steps.compromise(keyset, version, tag, now=datetime.now(UTC))

        current_request.name(kid=str(kid))
        current_request.change(keyset=name, state=State.COMPROMISED)
        self._step(principal, name, Right.MANAGE, revoke)
        if is_followed:
            with suppress(TokenUnavailable):  # whoever is at it goes on
                self.rotation.go_on(name)
        return self._described(name)

    def destroy(self, principal: Principal, name: str) -> None:
        """Destroy a key set with all its versions; those with ``destroy_after`` after that."""
        self.find(principal, name, Right.DESTROY)
        creation = self.rotation.creation
        creation.phases.hsm.offers()  # while the token is away it stays as it is
        gone: list[KeyRef] = []
        with creation.phases.under_way():

            def destroy(keyset: KeySet) -> None:
                after = keyset.destroy_after or self.destroy_after
                destroy_at = None if after is None else datetime.now(UTC) + after
                gone.extend(self.registry.keysets.steps.destroy(keyset, destroy_at))
                kids = [str(version.kid) for version in keyset.versions]
                # Whatever is answered; keys that can be had back have lines of their own later.
                until = {} if destroy_at is None else {"destroy_at": destroy_at.isoformat()}
                ended = {"destroyed" if gone else "versions": kids}
                current_request.change(keyset=name, **ended, **until)

            self._step(principal, name, Right.DESTROY, destroy)
            for ref in gone:
                creation.phases.destroy_marked(ref)
            current_request.when_audited(partial(self._remove, gone))

    def _remove(self, refs: Iterable[KeyRef]) -> None:
        for ref in refs:
            self.registry.remove(ref.kid)

    def grants(self, principal: Principal, name: str) -> Mapping[str, list[str]]:
        """Return who may do what with all versions, apart from their owner."""
        return self.registry.grants.of(self.find(principal, name, Right.MANAGE).id)

    def grant(
        self, principal: Principal, name: str, grantee: str, operations: Sequence[Right]
    ) -> None:
        """Let ``grantee`` do these operations with all versions, and no others."""
        require_grantee(grantee)

        def grant(keyset: KeySet) -> None:
            self.registry.keysets.steps.grant(keyset, grantee, operations)

        self._step(principal, name, Right.MANAGE, grant)
        current_request.change(keyset=name, grantee=grantee, operations=sorted(operations))

    def find(self, principal: Principal, name: str, right: Right) -> KeySet:
        """Return the key set, if the caller has that right to it."""
        if not is_alias(name):  # PostgreSQL takes no NUL
            raise KeyNotFound
        try:
            keyset, is_granted, is_known = self.registry.keysets.find_for(principal, right, name)
        except KeyError:
            raise KeyNotFound from None
        if principal.may(right, owner=keyset.owner, is_granted=is_granted):
            return keyset
        if principal.may(Right.READ, owner=keyset.owner, is_granted=is_known):
            raise Forbidden
        raise KeyNotFound

    def _step(
        self, principal: Principal, name: str, right: Right, step: Callable[[KeySet], None]
    ) -> None:
        """Make a step of a key set as it is now; somebody else may be at it, too."""
        for _ in range(_ATTEMPTS):
            keyset = self.find(principal, name, right)
            try:
                step(keyset)
            except Overtaken:
                self.rotation.go_on(name)  # with what it has not told yet
            else:
                return
        raise RegistryUnavailable

    def _described(self, name: str) -> dict[str, Any]:
        keyset = self.registry.keysets.find(name)
        if keyset is None:  # it has been destroyed meanwhile
            raise KeyNotFound
        return describe_set(keyset, self.registry.tags.of(keyset.id))

    def _require_slow(self, policy: Policy | None) -> None:
        """Raise ``BadRequest`` if a verifier that obeys the JWKS could meet an unknown kid."""
        if policy is None:
            return
        if policy.publish_ahead < self.rotation.max_age:
            least = write_duration(self.rotation.max_age)
            raise BadRequest(f"Field 'publish_ahead' must be at least {least}, as old as a JWKS is")
        if policy.every <= policy.publish_ahead:
            raise BadRequest("Field 'every' must be longer than 'publish_ahead'")


def kid_of(text: str) -> UUID:
    """Return the kid of a version; raise ``CryptoFailure`` if it can be none."""
    if not is_kid(text):
        raise CryptoFailure("The key set has no such version")
    return UUID(text)


def _audited(policy: Policy | None) -> dict[str, str | None]:
    return {"every": None if policy is None else write_duration(policy.every)}
