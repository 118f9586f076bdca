"""A key set and its versions as the registry knows them.

A version is ``next``, published and not used; then ``current``, the only one that makes anything
new; then ``previous``, which verifies and decrypts and is published until ``retires_at``; then
``retired``, the same and not published. One that is ``compromised`` leads nowhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.registry.databases.database import instant
from app.registry.records import spec_of
from hsm import KeySpec


class VersionState(StrEnum):
    """Where a version is in its life (wire contract §15)."""

    NEXT = "next"
    CURRENT = "current"
    PREVIOUS = "previous"
    RETIRED = "retired"
    COMPROMISED = "compromised"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When versions follow one another.

    A version is current for ``every``, published ``publish_ahead`` before that, and afterwards
    for ``retain``.
    """

    every: timedelta
    publish_ahead: timedelta
    retain: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One key of a set."""

    kid: UUID
    number: int
    state: VersionState
    created_at: datetime | None
    published_at: datetime | None = None
    current_at: datetime | None = None
    retires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """One row. ``id`` is the kid under which grants and tags of all versions are kept.

    ``rotates_at`` is when the next version becomes current, ``due_at`` when that is to be done or
    prepared. ``step`` counts the changes: each is made by whoever still finds the number that he
    has read. ``unaudited`` is what the last one did, as long as no audit log says so; ``host`` is
    where it was done.
    """

    id: UUID
    name: str
    owner: str
    spec: KeySpec
    policy: Policy | None
    is_published: bool
    current_kid: UUID
    destroy_after: timedelta | None = None
    next_kid: UUID | None = None
    rotates_at: datetime | None = None
    due_at: datetime | None = None
    step: int = 0
    unaudited: Mapping[str, Any] | None = None
    host: str = ""
    created_at: datetime | None = None
    changed_at: datetime | None = None
    versions: Sequence[Version] = ()

    def version(self, kid: UUID | None) -> Version | None:
        """Return the version that ``kid`` names, if it is one."""
        return next((version for version in self.versions if version.kid == kid), None)

    @property
    def has_lost_next(self) -> bool:
        """Whether the next version is not there: its creation was undone after it had come."""
        return self.next_kid is not None and self.version(self.next_kid) is None

    @property
    def is_urgent(self) -> bool:
        """Whether the current version is compromised, and another one has to take its place.

        It may have been destroyed since.
        """
        current = self.version(self.current_kid)
        return current is None or current.state is VersionState.COMPROMISED


def keyset_of(row: Any, versions: Sequence[Version]) -> KeySet:
    """Return the key set of a row."""
    policy = None if row.every is None else Policy(**{name: _seconds(row, name) for name in POLICY})
    return KeySet(
        id=UUID(row.id),
        name=row.name,
        owner=row.owner,
        spec=spec_of(row),
        policy=policy,
        is_published=bool(row.is_published),
        current_kid=UUID(row.current_kid),
        destroy_after=None if row.destroy_after is None else _seconds(row, "destroy_after"),
        next_kid=UUID(row.next_kid) if row.next_kid else None,
        rotates_at=instant(row.rotates_at),
        due_at=instant(row.due_at),
        step=int(row.step),
        unaudited=row.unaudited,
        host=row.host,
        created_at=instant(row.created_at),
        changed_at=instant(row.changed_at),
        versions=versions,
    )


POLICY = ("every", "publish_ahead", "retain")
"""The durations of a policy, each a column."""


def _seconds(row: Any, name: str) -> timedelta:
    return timedelta(seconds=getattr(row, name))


def version_of(row: Any) -> Version:
    """Return the version of a row."""
    return Version(
        kid=UUID(row.kid),
        number=int(row.number),
        state=VersionState(row.state),
        created_at=instant(row.created_at),
        published_at=instant(row.published_at),
        current_at=instant(row.current_at),
        retires_at=instant(row.retires_at),
    )


def values_of(keyset: KeySet) -> dict[str, Any]:
    """Return the columns of a new row."""
    spec = keyset.spec
    return {
        "id": str(keyset.id),
        "name": keyset.name,
        "owner": keyset.owner,
        "kty": spec.kty,
        "alg": spec.alg,
        "crv": spec.crv,
        "bits": spec.bits,
        "signs_digests": spec.signs_digests,
        "is_published": keyset.is_published,
        "current_kid": str(keyset.current_kid),
        "destroy_after": keyset.destroy_after and int(keyset.destroy_after.total_seconds()),
        "rotates_at": keyset.rotates_at,
        "due_at": keyset.due_at,
        **policy_values(keyset.policy),
    }


def policy_values(policy: Policy | None) -> dict[str, int | None]:
    """Return the columns of a policy, whole seconds."""
    return {
        name: None if policy is None else int(getattr(policy, name).total_seconds())
        for name in POLICY
    }
