"""Changes of key sets.

Each step is one transaction, whose first statement asks for the step before it: of all who try, on
however many hosts, one succeeds.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, literal, select
from sqlalchemy.exc import IntegrityError

from app.errors import KeySetTaken, RegistryUnavailable
from app.registry.databases.database import Database
from app.registry.keysets.records import (
    KeySet,
    Policy,
    Version,
    VersionState,
    policy_values,
    values_of,
)
from app.registry.records import DESTROYED, VISIBLE, State, activation_of, ref_of
from app.registry.tables import SPEC, grants, keys, keysets, tags, versions
from hsm import KeyRef

Event = Mapping[str, Any]
"""What a step has done, as the audit log is to have it."""


class Overtaken(Exception):
    """Somebody else has changed the key set since it was read."""


class Steps:
    """Each raises ``Overtaken`` unless the key set is as it was read, and in the audit log.

    ``host`` names those who share a ``STATE_DIR``.
    """

    def __init__(self, database: Database, host: str) -> None:
        self._database = database
        self.host = host

    def add(
        self,
        keyset: KeySet,
        ref: KeyRef,
        public_jwk: Mapping[str, str] | None,
        tag_names: Iterable[str],
    ) -> None:
        """Add a key set with its first version, a pending key, which signs from now on.

        Raises ``KeySetTaken`` if there is one of that name.
        """
        now = datetime.now(UTC)
        row = values_of(keyset) | {"host": self.host, "created_at": now, "changed_at": now}
        first = _version_row(keyset, ref.kid, 1, VersionState.CURRENT, now)
        try:
            with self._database.writing() as connection:
                connection.execute(insert(keysets).values(row))
                connection.execute(insert(versions).values(first))
                _tag(connection, [str(keyset.id)], tag_names)
                _activate(connection, keyset, ref, public_jwk, State.ACTIVE)
        except IntegrityError as error:
            raise KeySetTaken from error

    def add_next(
        self, keyset: KeySet, ref: KeyRef, public_jwk: Mapping[str, str] | None, event: Event
    ) -> None:
        """Publish a pending key, which is to be the next version."""
        number = 1 + max((version.number for version in keyset.versions), default=0)
        row = _version_row(keyset, ref.kid, number, VersionState.NEXT, None)
        with self._database.writing() as connection:
            self._step(connection, keyset, event, next_kid=str(ref.kid), due_at=None)
            connection.execute(insert(versions).values(row))
            _activate(connection, keyset, ref, public_jwk, State.DEACTIVATED)

    def tell(self, keyset: KeySet, *, now: datetime, **values: Any) -> bool:
        """Note that the audit log has a line of the last step; return whether none had noted it.

        ``values`` are columns to set with it. A version that has come is published since ``now``.
        """
        noted = (
            keysets.update()
            .where(
                keysets.c.id == str(keyset.id),
                keysets.c.step == keyset.step,
                keysets.c.unaudited.is_not(None),
            )
            .values(unaudited=None, changed_at=now, **values)
        )
        published = (
            versions.update()
            .where(versions.c.keyset == str(keyset.id), versions.c.published_at.is_(None))
            .values(published_at=now)
        )
        with self._database.writing() as connection:
            if connection.execute(noted).rowcount != 1:
                return False
            connection.execute(published)
        return True

    def rotate(
        self,
        keyset: KeySet,
        event: Event,
        *,
        now: datetime,
        rotates_at: datetime | None,
        due_at: datetime | None,
    ) -> None:
        """Make the next version current, and that one the previous.

        ``rotates_at`` is when the one after it is to follow.
        """
        policy, next_kid = keyset.policy, keyset.next_kid
        old = {"retires_at": now + policy.retain} if policy else {}
        values = {"rotates_at": rotates_at, "due_at": due_at}
        with self._database.writing() as connection:
            self._step(
                connection, keyset, event, current_kid=str(next_kid), next_kid=None, **values
            )
            if not keyset.is_urgent:
                _set_version(connection, keyset.current_kid, state=VersionState.PREVIOUS, **old)
                _set_key(connection, keyset.current_kid, State.ACTIVE, State.DEACTIVATED)
            _set_version(connection, next_kid, state=VersionState.CURRENT, current_at=now)
            if not _set_key(connection, next_kid, State.DEACTIVATED, State.ACTIVE):
                raise Overtaken

    def retire(self, keyset: KeySet, version: Version, event: Event, publishing: str) -> None:
        """Publish a previous version no longer, with that tag."""
        with self._database.writing() as connection:
            self._step(connection, keyset, event)
            _set_version(connection, version.kid, state=VersionState.RETIRED)
            _untag(connection, version.kid, publishing)

    def compromise(
        self, keyset: KeySet, version: Version, publishing: str, *, now: datetime
    ) -> None:
        """Use and publish a version no longer, with that tag, at once.

        If it is the current one or the next, another one is due.
        """
        is_next = version.kid == keyset.next_kid
        is_needed = is_next or version.kid == keyset.current_kid
        values: dict[str, Any] = {"next_kid": None} if is_next else {}
        if is_needed:
            values |= {"due_at": now, "rotates_at": keyset.rotates_at or now}
        with self._database.writing() as connection:
            self._step(connection, keyset, None, **values)
            _set_version(connection, version.kid, state=VersionState.COMPROMISED, retires_at=None)
            for state in (State.ACTIVE, State.DEACTIVATED):
                _set_key(connection, version.kid, state, State.COMPROMISED)
            _set_return(connection, version.kid, State.COMPROMISED)
            _untag(connection, version.kid, publishing)

    def schedule(self, keyset: KeySet, *, rotates_at: datetime | None, due_at: datetime) -> None:
        """Have the set rotate then, which is to be prepared at ``due_at``."""
        with self._database.writing() as connection:
            self._step(connection, keyset, None, rotates_at=rotates_at, due_at=due_at)

    def change(
        self,
        keyset: KeySet,
        policy: Policy | None,
        tag_names: Collection[str] | None,
        *,
        rotates_at: datetime | None,
        due_at: datetime | None,
    ) -> None:
        """Follow another policy, and have these tags if any are given."""
        values = {**policy_values(policy), "rotates_at": rotates_at, "due_at": due_at}
        with self._database.writing() as connection:
            self._step(connection, keyset, None, **values)
            if policy is not None:
                endless = versions.c.keyset == str(keyset.id), versions.c.retires_at.is_(None)
                is_previous = versions.c.state == VersionState.PREVIOUS
                ends = {"retires_at": datetime.now(UTC) + policy.retain}
                connection.execute(versions.update().where(*endless, is_previous).values(ends))
            if tag_names is not None:
                kids = _held(connection, keyset)
                own = select(tags.c.tag).where(tags.c.kid == str(keyset.id))
                before = list(connection.scalars(own))
                its = tags.c.kid.in_(kids), tags.c.tag.in_(before)
                connection.execute(delete(tags).where(*its))
                _tag(connection, kids, tag_names)

    def grant(self, keyset: KeySet, principal: str, operations: Iterable[str]) -> None:
        """Replace what ``principal`` may do with all versions."""
        with self._database.writing() as connection:
            self._step(connection, keyset, None)
            kids = _held(connection, keyset)
            rows = [
                {"kid": kid, "principal": principal, "operation": operation}
                for kid in kids
                for operation in sorted(set(operations))
            ]
            before = grants.c.kid.in_(kids), grants.c.principal == principal
            connection.execute(delete(grants).where(*before))
            if rows:
                connection.execute(insert(grants), rows)

    def destroy(self, keyset: KeySet, destroy_at: datetime | None) -> list[KeyRef]:
        """Remove a key set, and hide its keys; return those to be destroyed now.

        With ``destroy_at`` there are none: the keys can be had back until then, each by itself.
        """
        now = datetime.now(UTC)
        kids = [str(version.kid) for version in keyset.versions]
        hidden: dict[str, Any] = dict(DESTROYED)
        if destroy_at is not None:
            hidden = {
                "state": State.DESTROYING,
                "state_before": keys.c.state,
                "destroy_at": destroy_at,
            }
        are_its = keys.c.kid.in_(kids), keys.c.state.in_(VISIBLE)
        with self._database.writing() as connection:
            self._step(connection, keyset, None)
            found = [ref_of(row) for row in connection.execute(select(*SPEC).where(*are_its))]
            connection.execute(keys.update().where(*are_its).values(changed_at=now, **hidden))
            connection.execute(delete(versions).where(versions.c.keyset == str(keyset.id)))
            for table in (grants, tags):
                connection.execute(delete(table).where(table.c.kid == str(keyset.id)))
            connection.execute(delete(keysets).where(keysets.c.id == str(keyset.id)))
        return [] if destroy_at is not None else found

    def _step(
        self, connection: Connection, keyset: KeySet, event: Event | None, **values: Any
    ) -> None:
        """Begin a step, unless somebody else was faster: then raise ``Overtaken``."""
        update = (
            keysets.update()
            .where(
                keysets.c.id == str(keyset.id),
                keysets.c.step == keyset.step,
                keysets.c.unaudited.is_(None),
            )
            .values(
                step=keyset.step + 1,
                unaudited=event,
                host=self.host,
                changed_at=datetime.now(UTC),
                **values,
            )
        )
        if connection.execute(update).rowcount != 1:
            raise Overtaken


def _held(connection: Connection, keyset: KeySet) -> list[str]:
    """Return the kids under which grants and tags are kept, of the set and of its versions.

    Those that are still there: one may have been destroyed since the set was read, and nobody would
    ever remove what is added to it then. The others are kept until the transaction ends.
    """
    its = versions.update().where(versions.c.keyset == str(keyset.id)).values(kid=versions.c.kid)
    return [str(keyset.id), *connection.scalars(its.returning(versions.c.kid))]


def _version_row(
    keyset: KeySet, kid: UUID, number: int, state: VersionState, current_at: datetime | None
) -> dict[str, Any]:
    return {
        "kid": str(kid),
        "keyset": str(keyset.id),
        "number": number,
        "state": state,
        "created_at": datetime.now(UTC),
        "published_at": current_at,
        "current_at": current_at,
    }


def _activate(
    connection: Connection,
    keyset: KeySet,
    ref: KeyRef,
    public_jwk: Mapping[str, str] | None,
    state: State,
) -> None:
    """Make a pending key visible, with the grants and tags of its set."""
    values = activation_of(ref, public_jwk) | {"kid": str(ref.kid), "state": state}
    update = keys.update().where(keys.c.kid == str(ref.kid), keys.c.state == State.PENDING)
    made = update.values(changed_at=datetime.now(UTC), **values)
    if connection.execute(made).rowcount != 1:  # its row is gone: nobody could reach the key
        raise RegistryUnavailable
    kid = literal(str(ref.kid))
    for table, others in ((grants, ("principal", "operation")), (tags, ("tag", "tagged_at"))):
        columns = [table.c[name] for name in others]
        its = select(kid, *columns).where(table.c.kid == str(keyset.id))
        connection.execute(insert(table).from_select(["kid", *others], its))


def _set_version(connection: Connection, kid: UUID | None, **values: Any) -> None:
    connection.execute(versions.update().where(versions.c.kid == str(kid)).values(values))


def _set_key(connection: Connection, kid: UUID | None, before: State, after: State) -> bool:
    """Change the state of a key, if it is that ``before``; return whether it was."""
    now = literal(datetime.now(UTC), keys.c.changed_at.type)
    since = None if after is State.ACTIVE else func.coalesce(keys.c.deactivated_at, now)
    update = (
        keys.update()
        .where(keys.c.kid == str(kid), keys.c.state == before)
        .values(state=after, changed_at=now, deactivated_at=since)
    )
    return connection.execute(update).rowcount == 1


def _set_return(connection: Connection, kid: UUID, state: State) -> None:
    """Change the state to which a key returns, if it has been deleted and can be had back."""
    is_deleted = keys.c.kid == str(kid), keys.c.state == State.DESTROYING
    now = datetime.now(UTC)
    connection.execute(keys.update().where(*is_deleted).values(state_before=state, changed_at=now))


def _tag(connection: Connection, kids: Iterable[str], names: Iterable[str]) -> None:
    now = datetime.now(UTC)
    rows = [{"kid": kid, "tag": name, "tagged_at": now} for kid in kids for name in set(names)]
    if rows:
        connection.execute(insert(tags), rows)


def _untag(connection: Connection, kid: UUID, name: str) -> None:
    connection.execute(delete(tags).where(tags.c.kid == str(kid), tags.c.tag == name))
