"""How many keys there are, of which type and in which state."""

from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Select, and_, case, column, func, select, table

from app.registry.databases.database import Database, instant
from app.registry.databases.reading import legible
from app.registry.records import LASTING, VISIBLE, State
from app.registry.rows.tallies import Tallies, Tally, tallies_of
from app.registry.tables import keys
from app.registry.uses import is_unused_since

SAMPLE: Final = 1_000
_REVISION: Final[Select[Any]] = select(column("version_num")).select_from(table("alembic_version"))


class Group(NamedTuple):
    """Keys of one type and size in one state; ``is_idle`` if they are of use, and not used."""

    kty: str
    crv: str | None
    bits: int | None
    state: State
    is_idle: bool
    number: int


class Census:
    """Counts all keys, and says in which revision the schema is."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.tallies = Tallies(database)

    def groups(self, *, idle_since: date) -> list[Group]:
        """Return the keys by type, state, and whether they are idle.

        An active key that has expired is a deactivated one. How many are idle and have expired is
        exact of up to ``SAMPLE`` keys of a type, size and state. Of more it is what a sample says.
        """
        with self._database.reading() as connection:
            return [
                group
                for tally in tallies_of(connection)
                for group in _divided(connection, tally, idle_since)
            ]

    def owned_by(self, owner: str, *, at_most: int) -> int:
        """Return how many keys ``owner`` has, with those that are being made or can be had back.

        Wrapping keys are keys, too. None is counted beyond ``at_most``.
        """
        there = keys.c.state.in_([State.PENDING, State.WRAPPING, *LASTING])
        its = select(keys.c.kid).where(keys.c.owner == owner, there).limit(at_most)
        query = select(func.count()).select_from(its.subquery())
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def next_expiry(self, now: datetime) -> datetime | None:
        """Return when the next active key expires; ``None`` if none does."""
        # Not by the index of states: most keys are active, and few expire.
        is_active = func.coalesce(keys.c.state, "") == State.ACTIVE
        query = select(keys.c.expires_at).where(keys.c.expires_at > now, is_active)
        with self._database.reading() as connection, legible():
            return instant(connection.scalar(query.order_by(keys.c.expires_at).limit(1)))

    def active_of(self, kids: Collection[UUID]) -> frozenset[UUID]:
        """Return those of ``kids`` that are active, or were until they expired."""
        named = keys.c.kid.in_(list(map(str, kids)))
        query = select(keys.c.kid).where(named, keys.c.state == State.ACTIVE)
        with self._database.reading() as connection:
            return frozenset(map(UUID, connection.scalars(query)))

    def revision(self) -> str | None:
        """Return the revision of the schema, as Alembic names it."""
        with self._database.reading() as connection:
            return connection.execute(_REVISION).scalar_one_or_none()


def _divided(connection: Connection, tally: Tally, idle_since: date) -> Iterator[Group]:
    """Divide keys of one kind in proportion to a sample."""
    if tally.state not in VISIBLE:
        yield Group(*tally[:4], is_idle=False, number=tally.number)
        return
    found = connection.execute(sample_of(tally, idle_since)).all()
    seen, sampled, given = 0, sum(row.number for row in found), 0
    for row in found:
        seen += row.number
        number = round(tally.number * seen / sampled) - given
        given += number
        state = State.DEACTIVATED if row.is_over else tally.state
        yield Group(*tally[:3], state, is_idle=bool(row.is_idle), number=number)


def sample_of(tally: Tally, idle_since: date) -> Select[Any]:
    """Return the query of how many of the first keys are idle and over.

    The order of kids is that of random numbers, and so the first are a sample.
    """
    is_over = and_(keys.c.state == State.ACTIVE, keys.c.expires_at <= datetime.now(UTC))
    # In two steps: PostgreSQL does not see that an expression with a parameter is the same.
    first = (
        select(
            case((is_over, 1), else_=0).label("is_over"),
            case((is_unused_since(idle_since), 1), else_=0).label("is_idle"),
        )
        .where(keys.c.kty == tally.kty, keys.c.crv == tally.crv)  # or IS NULL
        .where(keys.c.bits == tally.bits, keys.c.state == tally.state)
        .order_by(keys.c.kid)
        .limit(SAMPLE)
        .subquery()
    )
    return select(first, func.count().label("number")).group_by(*first.c)
