"""Key sets by name."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Select, exists, or_, select

from app.errors import RegistryUnavailable
from app.registry.databases.database import Database, instant
from app.registry.databases.queries import IS_LACKING, IS_SPENT, OUTLOOK
from app.registry.databases.reading import UNREADABLE, is_of_a_row, legible
from app.registry.keysets.records import KeySet, Version, VersionState, keyset_of, version_of
from app.registry.keysets.steps import Steps
from app.registry.records import VISIBLE, Key, record_of
from app.registry.tables import grants, keys, keysets, versions

logger = logging.getLogger(__name__)

_AT_ONCE: Final = datetime.min.replace(tzinfo=UTC)


class Outlook(NamedTuple):
    """When the first of all key sets rotates, and when something is to be done with one."""

    rotates_at: datetime | None
    due_at: datetime | None


class KeySets:
    """What is known of key sets; ``steps`` change them."""

    def __init__(self, database: Database, host: str) -> None:
        self._database = database
        self._lookup = database.lookup(OUTLOOK, _outlook_of)
        self.steps = Steps(database, host)

    def find(self, name: str) -> KeySet | None:
        """Return the key set of that name; raise ``RegistryUnavailable`` if it cannot be read."""
        query = select(keysets).where(keysets.c.name == name)
        with self._database.reading() as connection, legible():
            return next(iter(_whole(connection, query)), None)

    def find_for(self, principal: str, operation: str, name: str) -> tuple[KeySet, bool, bool]:
        """Return a key set, and whether ``operation`` is granted on it, or anything.

        Raises ``KeyError`` if there is none.
        """
        keyset = self.find(name)
        if keyset is None:
            raise KeyError(name)
        query = select(grants.c.operation).where(
            grants.c.kid == str(keyset.id), grants.c.principal.in_([str(principal), "*"])
        )
        with self._database.reading() as connection:
            granted = set(connection.scalars(query))
        return keyset, str(operation) in granted, bool(granted)

    def page(self, reader: str | None, *, after: str, limit: int) -> Sequence[KeySet]:
        """Return the key sets that ``reader`` may read, or all for ``None``, by their names."""
        query = select(keysets).where(keysets.c.name > after)
        if reader is not None:
            is_granted = exists(grants).where(
                grants.c.kid == keysets.c.id,
                grants.c.principal.in_([reader, "*"]),
                grants.c.operation == "read",
            )
            query = query.where(or_(keysets.c.owner == reader, is_granted))
        found, names = self._found(query.order_by(keysets.c.name).limit(limit))
        if len(found) == limit or len(names) < limit:
            return found
        return [*found, *self.page(reader, after=names[-1], limit=limit - len(found))]

    def due(self, now: datetime, *, most_encryptions: int) -> Sequence[KeySet]:
        """Return those with which something is to be done now.

        That is a step whose time has come, a line that the audit log lacks, a version that is
        compromised or lost, or a current one that has encrypted ``most_encryptions`` times.
        """
        retiring = select(versions.c.keyset).where(
            versions.c.retires_at <= now, versions.c.state == VersionState.PREVIOUS
        )
        query = select(keysets).where(
            or_(
                keysets.c.unaudited.is_not(None),
                keysets.c.due_at <= now,
                keysets.c.id.in_(retiring),
                IS_LACKING,
                exists(keys).where(IS_SPENT),
            )
        )
        query = query.params(most_encryptions=most_encryptions)
        found, _ = self._found(query.order_by(keysets.c.due_at))
        return found

    def is_spent(self, keyset: KeySet, most_encryptions: int) -> bool:
        """Tell whether the current key has encrypted ``most_encryptions`` times."""
        query = select(keys.c.encryptions >= most_encryptions)
        with self._database.reading() as connection:
            return bool(connection.scalar(query.where(keys.c.kid == str(keyset.current_kid))))

    def outlook(self, *, most_encryptions: int) -> Outlook:
        """Return when something is to be done next with any key set; see ``due``."""
        try:
            found: Outlook = self._database.one(self._lookup, most_encryptions=most_encryptions)
        except RegistryUnavailable as error:
            if not is_of_a_row(error):
                raise
            return Outlook(None, _AT_ONCE)  # one row hides the others, of which ``due`` knows
        return found

    def name_of(self, kid: UUID) -> tuple[str, VersionState] | None:
        """Return the name of the key set that a key is a version of, and the version's state."""
        query = (
            select(keysets.c.name, versions.c.state)
            .join_from(versions, keysets, keysets.c.id == versions.c.keyset)
            .where(versions.c.kid == str(kid))
        )
        with self._database.reading() as connection, legible():
            row = connection.execute(query).one_or_none()
            return None if row is None else (row.name, VersionState(row.state))

    def keys_of(self, keyset: KeySet) -> Sequence[Key]:
        """Return the keys of all versions that are of use, the newest first."""
        query = (
            select(keys)
            .join_from(versions, keys, keys.c.kid == versions.c.kid)
            .where(versions.c.keyset == str(keyset.id), keys.c.state.in_(VISIBLE))
            .order_by(versions.c.number.desc())
        )
        with self._database.reading() as connection, legible():
            return [record_of(row) for row in connection.execute(query)]

    def _found(self, query: Select[Any]) -> tuple[list[KeySet], list[str]]:
        """Return the key sets that can be read, and the names of all; log the others.

        They are read at once, and one by one only if that fails.
        """
        with self._database.reading() as connection:
            try:
                found = _whole(connection, query)
            except UNREADABLE:
                names = list(connection.scalars(query.with_only_columns(keysets.c.name)))
                return [keyset for name in names for keyset in _readable(connection, name)], names
            return found, [keyset.name for keyset in found]


def _whole(connection: Connection, query: Select[Any]) -> list[KeySet]:
    rows = connection.execute(query).all()
    ids = [row.id for row in rows]
    by_set: defaultdict[str, list[Version]] = defaultdict(list)
    its = select(versions).where(versions.c.keyset.in_(ids)).order_by(versions.c.number)
    for row in connection.execute(its) if ids else ():
        by_set[row.keyset].append(version_of(row))
    return [keyset_of(row, by_set[row.id]) for row in rows]


def _readable(connection: Connection, name: str) -> list[KeySet]:
    try:
        return _whole(connection, select(keysets).where(keysets.c.name == name))
    except UNREADABLE as error:
        logger.error(  # noqa: TRY400  # its traceback would say no more
            "a row of keysets cannot be read: %s: %s", name, type(error).__name__
        )
        return []


def _outlook_of(row: Any) -> Outlook:
    due = (instant(row.due_at), instant(row.retires_at), _AT_ONCE if row.is_now else None)
    first = min((at for at in due if at is not None), default=None)
    return Outlook(instant(row.rotates_at), first)
