"""The database: its engine, and connections that say in one way that it does not answer."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import CompoundSelect, Connection, Engine, Select, event
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.errors import RegistryCause, RegistryUnavailable
from app.registry.databases import sqlite
from app.registry.databases.engines import engine_of
from app.registry.databases.lookup import Lookup
from app.registry.databases.readers import Readers
from app.registry.databases.reading import legible

logger = logging.getLogger(__name__)

_CAUSES: Final = {  # by SQLSTATE
    "42501": RegistryCause.PERMISSION,
    "42703": RegistryCause.SCHEMA,  # no such column
    "42P01": RegistryCause.SCHEMA,  # no such table
}


class Database:
    """Connections to the registry; they raise ``RegistryUnavailable`` if it does not answer.

    ``observe`` is told the seconds of each use of one.
    """

    def __init__(self, url: str, observe: Callable[[float], None]) -> None:
        self.engine = engine_of(url)
        # On a server each statement of a read sees what is there then, also in a transaction, of
        # which beginning and end would each be one more way to it and back.
        self._is_file = self.engine.dialect.name == "sqlite"
        options = {} if self._is_file else {"isolation_level": "AUTOCOMMIT"}
        self._reads = self.engine.execution_options(**options)
        self._observe = observe
        self.require: Callable[[object], None] = lambda _file: None
        """Called with the file before each use; raises ``RegistryUnavailable`` to forbid it."""
        self._readers = Readers(self.engine)
        time_use(self.engine, observe)

    def lookup(
        self, query: Select[Any] | CompoundSelect[Any], record_of: Callable[[Any], Any]
    ) -> Lookup:
        """Return a cheaper way to read the one row of ``query``, for what every request reads."""
        return Lookup(self._readers, query, record_of, self._observe)

    def one(self, lookup: Lookup, **parameters: str | int) -> Any:
        """Return what is found; what goes wrong is said as in ``reading``, and of a row too.

        A ``with`` block would cost as much as the look.
        """
        file = self._readers.file
        self.require(file)
        try:
            return lookup.one(file, **parameters)
        except Exception:
            with translated(self.engine), legible():
                raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection that only reads."""
        with self.translated(), self._reads.connect() as connection:
            yield connection

    @contextmanager
    def streaming(self) -> Iterator[Connection]:
        """Lend a connection that only reads, for rows that are not to be in memory at once."""
        with self.translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Lend a connection whose changes are committed at the end, all or none."""
        with self.translated(), self.engine.begin() as connection:
            if self._is_file:
                sqlite.begin_writing(connection)
            yield connection

    def translated(self) -> AbstractContextManager[None]:
        """Raise ``RegistryUnavailable`` in a ``with`` block for what the database says."""
        self.require(self._readers.file)
        return translated(self.engine)


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Raise ``RegistryUnavailable`` for what a database says that does not answer."""
    try:
        yield
    except (IntegrityError, DataError):  # of values, not of the database
        raise
    # A ProgrammingError: no such table, where nobody has migrated. An InternalError: a PostgreSQL
    # that only reads. A plain DatabaseError: what is no SQLite database, or a damaged one.
    except (DBAPIError, PoolTimeoutError) as error:
        answer = getattr(error, "orig", error)
        logger.warning("the registry answers: %s", answer)
        raise RegistryUnavailable(_cause(engine, answer)) from error


def _cause(engine: Engine, answer: Any) -> RegistryCause:
    if engine.dialect.name == "sqlite":
        return sqlite.cause_of(engine, answer)
    return _CAUSES.get(str(getattr(answer, "sqlstate", "")), RegistryCause.REGISTRY)


@contextmanager
def engine_for(url: str, *, is_maintenance: bool = False) -> Iterator[Engine]:
    """Lend an engine for one ``with`` block; it raises ``RegistryUnavailable`` as above."""
    engine = engine_of(url, is_maintenance=is_maintenance)
    try:
        with translated(engine):
            yield engine
    finally:
        engine.dispose()


def instant(value: datetime | None) -> datetime | None:
    """Return an instant in UTC: SQLite forgets that it is, PostgreSQL has a zone of its own."""
    if value is None:
        return None
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def time_use(engine: Engine, observe: Callable[[float], None]) -> None:
    """Tell ``observe`` the seconds from each checkout of a connection to its return."""

    def start(_connection: object, record: Any, _proxy: object) -> None:
        record.info["started"] = time.perf_counter()

    def end(_connection: object, record: Any) -> None:
        observe(time.perf_counter() - record.info.pop("started", time.perf_counter()))

    event.listen(engine, "checkout", start)
    event.listen(engine, "checkin", end)
