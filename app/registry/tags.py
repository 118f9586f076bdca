"""Tags of keys, and the keys that a tag publishes."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from app.registry.database import Database
from app.registry.reading import readable
from app.registry.records import Key, State, record_of
from app.registry.tables import keys, tags


class Tags:
    """Tags by key, keys by tag."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, kid: UUID) -> list[str]:
        """Return the tags of a key, sorted."""
        query = select(tags.c.tag).where(tags.c.kid == str(kid))
        with self._database.reading() as connection:
            return sorted(connection.scalars(query))  # databases have orders of their own

    def of_all(self, kids: Iterable[UUID]) -> Mapping[UUID, list[str]]:
        """Return the tags of several keys, sorted."""
        names = [str(kid) for kid in kids]
        query = select(tags).where(tags.c.kid.in_(names))
        found: dict[UUID, list[str]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(query):
                found.setdefault(UUID(row.kid), []).append(row.tag)
        return {kid: sorted(its) for kid, its in found.items()}

    def add(self, kid: UUID, names: Iterable[str]) -> None:
        """Add tags; those that are there already stay."""
        for name in sorted(set(names) - set(self.of(kid))):
            row = {"kid": str(kid), "tag": name, "tagged_at": datetime.now(UTC)}
            try:
                with self._database.writing() as connection:
                    connection.execute(insert(tags).values(row))
            except IntegrityError:
                continue  # somebody else added it meanwhile

    def remove(self, kid: UUID, names: Iterable[str]) -> None:
        """Remove tags; absence is success."""
        query = delete(tags).where(tags.c.kid == str(kid), tags.c.tag.in_(list(names)))
        with self._database.writing() as connection:
            connection.execute(query)

    def published(self, tag: str, *, limit: int) -> Sequence[Key]:
        """Return generated pairs with ``tag`` that verify, those tagged last first."""
        query = (
            select(keys)
            .join_from(tags, keys, keys.c.kid == tags.c.kid)
            .where(
                tags.c.tag == tag,
                keys.c.kid_public.is_not(None),
                keys.c.state.in_([State.ACTIVE, State.DEACTIVATED]),
            )
            .order_by(tags.c.tagged_at.desc(), tags.c.kid.desc())
            .limit(limit)
        )
        with self._database.reading() as connection:
            return readable(connection, query, record_of)
