"""How many keys there are, without a look at them: triggers count each change of a row.

Each change adds a row to ``tallies`` and waits for nobody; the sum is the number. Rows that have
become many are merged.
"""

from collections import Counter
from collections.abc import Collection
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Select, delete, func, insert, select

from app.registry.databases.database import Database
from app.registry.databases.reading import readable_sums
from app.registry.records import State
from app.registry.tables import tallies

_MANY: Final = 1_000
_BATCH: Final = 10_000
_KIND: Final = (tallies.c.kty, tallies.c.crv, tallies.c.bits, tallies.c.state, tallies.c.kek)


class Tally(NamedTuple):
    """The number of keys of one type and size in one state."""

    kty: str
    crv: str | None
    bits: int | None
    state: State
    number: int


class Tallies:
    """Counts that cost the same however many keys there are."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def total(self) -> int:
        """Return how many keys there are, with those that are being made and destroyed."""
        with self._database.reading() as connection:
            return int(connection.scalar(select(func.sum(tallies.c.number))) or 0)

    def by_state(self) -> dict[tuple[str, ...], int]:
        """Return how many keys there are by type and state, as the two are written down."""
        query = _summed(tallies.c.kty, tallies.c.state)
        with self._database.reading() as connection:
            return {tuple(kind): int(number) for *kind, number in connection.execute(query)}

    def by_kek(self) -> dict[UUID, int]:
        """Return how many keys there are under each key-encryption key."""
        query = _summed(tallies.c.kek).where(tallies.c.kek.is_not(None))
        with self._database.reading() as connection:
            return dict(readable_sums(connection, query, _of_kek, "keks"))

    def merge(self) -> None:
        """Put one row in the place of all of a kind, if they have become many."""
        with self._database.reading() as connection:
            number = connection.scalar(select(func.count()).select_from(tallies)) or 0
        while number > _MANY and self._merge_some() == _BATCH:
            pass

    def _merge_some(self) -> int:
        """Merge the oldest rows, but for those that another host merges; return how many."""
        oldest = select(tallies.c.id).order_by(tallies.c.id).limit(_BATCH)
        oldest = oldest.with_for_update(skip_locked=True)
        gone = delete(tallies).where(tallies.c.id.in_(oldest)).returning(*_KIND, tallies.c.number)
        with self._database.writing() as connection:
            rows = connection.execute(gone).all()
            _add(connection, rows)
        return len(rows)


def tallies_of(connection: Connection) -> list[Tally]:
    """Return the numbers of keys by type, size and state, as a transaction sees them."""
    return readable_sums(connection, _summed(*_KIND[:-1]), _tally, "tallies")


def _tally(row: Any) -> Tally:
    kty, crv, bits, state, number = row
    if not isinstance(bits, int | None):
        raise TypeError("a length is a number")
    return Tally(kty, crv, bits, State(state), int(number))


def _of_kek(row: Any) -> tuple[UUID, int]:
    kek, number = row
    return UUID(kek), int(number)


def _summed(*kind: Any) -> Select[Any]:
    number = func.sum(tallies.c.number)
    return select(*kind, number).group_by(*kind).having(number > 0)


def _add(connection: Connection, rows: Collection[Any]) -> None:
    numbers: Counter[tuple[Any, ...]] = Counter()
    for *kind, number in rows:
        numbers[tuple(kind)] += number
    names = [column.name for column in _KIND]
    merged = [
        dict(zip(names, kind, strict=True)) | {"number": number}
        for kind, number in numbers.items()
        if number
    ]
    if merged:
        connection.execute(insert(tallies), merged)
