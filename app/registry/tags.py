"""Tags of keys, and the keys that a tag publishes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
)

from app.registry.databases.database import Database
from app.registry.databases.reading import readable
from app.registry.records import Key, State, record_of
from app.registry.rows.holding import hold
from app.registry.tables import keys, keysets, tags, versions
from hsm import CryptoFailure

_PUBLIC: Final = (State.ACTIVE, State.DEACTIVATED)
_OF_ALL: Final = select(tags).where(tags.c.kid.in_(bindparam("kids", expanding=True)))
_PUBLISHING: Final = 0x6A776B73  # any number that means the same to all


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Which public keys everybody may fetch: those of pairs with ``tag``, at most ``most``.

    ``takes_new`` pairs that sign: they get the tag while there is room.
    """

    most: int
    tag: str = "jwks"
    takes_new: bool = True

    def refusal(self) -> CryptoFailure:
        """Return what a caller is told who asks for one more."""
        return CryptoFailure(f"{self.most} keys may be published, and more would be")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagging:
    """The tags of a new key, and whether it is to be published: if there is room, or if asked."""

    tags: frozenset[str] = frozenset()
    publication: Publication | None = None
    is_asked: bool = False

    def require(self, *, is_published: bool) -> None:
        """Raise ``CryptoFailure`` for a key that was to be published, and is not."""
        if self.publication and self.is_asked and not is_published:
            raise self.publication.refusal()


class Tags:
    """Tags by key, keys by tag."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, kid: UUID) -> list[str]:
        """Return the tags of a key, sorted."""
        with self._database.reading() as connection:
            return sorted(connection.scalars(_of(kid)))  # databases have orders of their own

    def of_all(self, kids: Iterable[UUID]) -> Mapping[UUID, list[str]]:
        """Return the tags of several keys, sorted."""
        its = {"kids": list(map(str, kids))}
        found: dict[UUID, list[str]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(_OF_ALL, its):
                found.setdefault(UUID(row.kid), []).append(row.tag)
        return {kid: sorted(its) for kid, its in found.items()}

    def add(self, kid: UUID, names: Iterable[str]) -> None:
        """Add tags, all or none; those that are there already stay.

        Raises ``KeyNotFound`` if the key is gone.
        """
        now = datetime.now(UTC)
        with self._database.writing() as connection:
            hold(connection, kid)
            new = set(names) - set(connection.scalars(_of(kid)))
            rows = [{"kid": str(kid), "tag": name, "tagged_at": now} for name in sorted(new)]
            if rows:
                connection.execute(insert(tags), rows)

    def publish(self, kid: UUID, owner: str, publication: Publication) -> bool:
        """Add the tag that publishes; return whether the key has it then.

        Raises ``KeyNotFound`` if the key is gone, or no longer of ``owner``, who wants that.
        """
        with self._database.writing() as connection:
            hold(connection, kid, keys.c.owner == owner)
            is_there = publication.tag in set(connection.scalars(_of(kid)))
            return is_there or publish(connection, kid, publication)

    def remove(self, kid: UUID, names: Iterable[str]) -> None:
        """Remove tags; absence is success."""
        query = delete(tags).where(tags.c.kid == str(kid), tags.c.tag.in_(list(names)))
        with self._database.writing() as connection:
            connection.execute(query)

    def published(
        self,
        publication: Publication,
        *,
        owner: str | None = None,
        tag: str | None = None,
        keyset: str | None = None,
    ) -> Sequence[Key]:
        """Return pairs with the tag, those tagged last first; of ``owner`` and with ``tag`` too.

        With the name of a ``keyset`` they are its versions.
        """
        query = _tagged(select(keys), publication.tag, keys.c.state.in_(_PUBLIC))
        if owner is not None:
            query = query.where(keys.c.owner == owner)
        if tag is not None:
            query = query.where(keys.c.kid.in_(select(tags.c.kid).where(tags.c.tag == tag)))
        if keyset is not None:
            of_set = versions.join(keysets, keysets.c.id == versions.c.keyset)
            its = select(versions.c.kid).select_from(of_set).where(keysets.c.name == keyset)
            query = query.where(keys.c.kid.in_(its))
        query = query.order_by(tags.c.tagged_at.desc(), tags.c.kid.desc()).limit(publication.most)
        with self._database.reading() as connection:
            return readable(connection, query, record_of)


def _of(kid: UUID) -> Select[Any]:
    return select(tags.c.tag).where(tags.c.kid == str(kid))


def publish(connection: Connection, kid: UUID, publication: Publication) -> bool:
    """Add the tag to a key, unless as many pairs have it as may; return whether it was added.

    Nobody else adds it meanwhile: SQLite has one writer at a time, and PostgreSQL a lock.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_PUBLISHING)))
    published = _tagged(select(func.count()), publication.tag, _is_to_be_public()).scalar_subquery()
    now = literal(datetime.now(UTC), tags.c.tagged_at.type)
    row = select(literal(str(kid)), literal(publication.tag), now)
    added = insert(tags).from_select(
        ["kid", "tag", "tagged_at"], row.where(published < publication.most)
    )
    return connection.execute(added.returning(tags.c.kid)).first() is not None


def _is_to_be_public() -> ColumnElement[bool]:
    """Return what holds of pairs that are published, or that will be once they are there again."""
    is_to_return = and_(keys.c.state == State.DESTROYING, keys.c.state_before.in_(_PUBLIC))
    return or_(keys.c.state.in_([State.PENDING, *_PUBLIC]), is_to_return)


def _tagged(query: Select[Any], tag: str, condition: ColumnElement[bool]) -> Select[Any]:
    """Return ``query`` of the pairs with ``tag`` of which ``condition`` holds."""
    return query.join_from(tags, keys, keys.c.kid == tags.c.kid).where(
        tags.c.tag == tag, keys.c.kty != "oct", condition
    )
