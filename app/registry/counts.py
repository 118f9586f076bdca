"""How many keys there are, of which type and in which state."""

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Label, Select, and_, case, column, func, select, table

from app.registry.databases.database import Database
from app.registry.records import LASTING, State
from app.registry.tables import keys

_REVISION: Final[Select[Any]] = select(column("version_num")).select_from(table("alembic_version"))


class Group(NamedTuple):
    """Keys of one type and size in one state."""

    kty: str
    crv: str | None
    bits: int | None
    state: State
    number: int


class Census:
    """Counts all keys, and says in which revision the schema is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def groups(self) -> list[Group]:
        """Return the keys by type and state; an active key that has expired is a deactivated one.

        Costs one look at every row, 10 ms for 10,000 on SQLite.
        """
        # In two steps: PostgreSQL does not see that an expression with a parameter is the same.
        each = select(keys.c.kty, keys.c.crv, keys.c.bits, _state(datetime.now(UTC))).subquery()
        query = select(each, func.count()).group_by(*each.c)
        with self._database.reading() as connection:
            return [
                Group(kty, crv, bits, State(state), number)
                for kty, crv, bits, state, number in connection.execute(query)
            ]

    def owned_by(self, owner: str) -> int:
        """Return how many keys ``owner`` has, with those that are being made or can be had back.

        Wrapping keys are keys, too.
        """
        query = select(func.count()).where(
            keys.c.owner == owner, keys.c.state.in_([State.PENDING, State.WRAPPING, *LASTING])
        )
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def revision(self) -> str | None:
        """Return the revision of the schema, as Alembic names it."""
        with self._database.reading() as connection:
            return connection.execute(_REVISION).scalar_one_or_none()


def _state(now: datetime) -> Label[str]:
    is_over = and_(keys.c.state == State.ACTIVE, keys.c.expires_at <= now)
    return case((is_over, State.DEACTIVATED), else_=keys.c.state).label("state")
