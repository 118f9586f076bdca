"""On which day each key was used last: noted in memory, and written now and then."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from importlib import import_module
from threading import Lock
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, exists, literal, not_, select

from app.errors import RegistryUnavailable
from app.registry.databases.database import Database
from app.registry.tables import keys, uses

_DAY_SECONDS: Final = 86_400
_EPOCH: Final = date(1970, 1, 1).toordinal()
_MOST_NOTED: Final = 65_536
_BATCH: Final = 1000


class Uses:
    """The day of the last use of each key, by UTC.

    A process that is killed loses what it has noted and not written. A later day stands, whoever
    writes an earlier one.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._noted: dict[int, int] = {}  # by number: a UUID hashes itself in Python
        self._unwritten: dict[UUID, int] = {}

    def note(self, kid: UUID) -> None:
        """Note that a key has been used now; the first time of a day has it written."""
        day = _today()
        if self._noted.get(kid.int) != day:
            with self._lock:
                if len(self._noted) >= _MOST_NOTED:  # whoever is forgotten is written once more
                    self._noted.clear()
                self._noted[kid.int] = self._unwritten[kid] = day

    def write(self) -> None:
        """Write what has been noted; what cannot be written now is left for the next time."""
        with self._lock:
            unwritten, self._unwritten = self._unwritten, {}
        try:
            for day, kids in _by_day(unwritten):
                with self._database.writing() as connection:
                    write_use(connection, kids, day)
        except RegistryUnavailable:
            with self._lock:
                self._unwritten = unwritten | self._unwritten


def write_use(connection: Connection, kids: Sequence[str], day: date) -> None:
    """Write that the keys of ``kids`` have been used on ``day``, if they are still there."""
    its = select(keys.c.kid, literal(day, uses.c.day.type)).where(keys.c.kid.in_(kids))
    new = _insert(connection.dialect.name)(uses)
    # In an order that all have: two who write the same keys do not wait for each other in a ring.
    new = new.from_select(["kid", "day"], its.order_by(keys.c.kid))
    is_later = uses.c.day < new.excluded.day
    connection.execute(
        new.on_conflict_do_update(
            index_elements=[uses.c.kid], set_={"day": new.excluded.day}, where=is_later
        )
    )


def _insert(dialect: str) -> Any:
    """Return INSERT with ON CONFLICT: a dialect takes long to import, and one is in use already."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert


def is_unused_since(day: date) -> ColumnElement[bool]:
    """Return the condition that a key was there before ``day``, and has not been used since."""
    began = datetime(day.year, day.month, day.day, tzinfo=UTC)
    used = exists(uses).where(uses.c.kid == keys.c.kid, uses.c.day >= day)
    return and_(keys.c.created_at < began, not_(used))


def today() -> date:
    """Return the day that it is, by UTC."""
    return _date(_today())


def _today() -> int:
    return int(time.time() // _DAY_SECONDS)


def _date(day: int) -> date:
    return date.fromordinal(_EPOCH + day)


def _by_day(days: Mapping[UUID, int]) -> Iterator[tuple[date, Sequence[str]]]:
    """Give the kids of each day, not too many at once: others want to write, too."""
    by_day: defaultdict[int, list[str]] = defaultdict(list)
    for kid, day in days.items():
        by_day[day].append(str(kid))
    for day, kids in by_day.items():
        for start in range(0, len(kids), _BATCH):
            yield _date(day), kids[start : start + _BATCH]
