"""How many keys there are, of which type and in which state."""

import time
from collections.abc import Collection
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Label, Select, and_, case, column, func, select, table

from app.registry.databases.database import Database
from app.registry.records import LASTING, VISIBLE, State
from app.registry.tables import keys
from app.registry.uses import is_unused_since

VERY_MANY: Final = 100_000
_KEPT_SECONDS: Final = 60.0
_REVISION: Final[Select[Any]] = select(column("version_num")).select_from(table("alembic_version"))


class Group(NamedTuple):
    """Keys of one type and size in one state; ``is_idle`` if they are of use, and not used."""

    kty: str
    crv: str | None
    bits: int | None
    state: State
    is_idle: bool
    number: int


class _Kept(NamedTuple):
    """What was counted, and until when it is told again, in seconds of the monotonic clock."""

    groups: list[Group]
    until: float


class Census:
    """Counts all keys, and says in which revision the schema is."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept = _Kept([], 0.0)

    def groups(self, *, idle_since: date) -> list[Group]:
        """Return the keys by type, state, and whether they are idle.

        An active key that has expired is a deactivated one. Costs one look at every row, 10 ms for
        10,000 on SQLite: of very many keys the answer is up to a minute old.
        """
        kept = self._kept
        if time.monotonic() < kept.until:
            return kept.groups
        groups = self._counted(idle_since)
        if sum(group.number for group in groups) >= VERY_MANY:
            self._kept = _Kept(groups, time.monotonic() + _KEPT_SECONDS)
        return groups

    def _counted(self, idle_since: date) -> list[Group]:
        # In two steps: PostgreSQL does not see that an expression with a parameter is the same.
        of_type = keys.c.kty, keys.c.crv, keys.c.bits
        is_idle = and_(keys.c.state.in_(VISIBLE), is_unused_since(idle_since))
        idle = case((is_idle, 1), else_=0).label("is_idle")
        each = select(*of_type, _state(datetime.now(UTC)), idle).subquery()
        query = select(each, func.count()).group_by(*each.c)
        with self._database.reading() as connection:
            return [
                Group(kty, crv, bits, State(state), bool(is_idle), number)
                for kty, crv, bits, state, is_idle, number in connection.execute(query)
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


def _state(now: datetime) -> Label[str]:
    is_over = and_(keys.c.state == State.ACTIVE, keys.c.expires_at <= now)
    return case((is_over, State.DEACTIVATED), else_=keys.c.state).label("state")
