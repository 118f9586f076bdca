"""The database: its engine, and connections that say in one way that it does not answer."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, Select, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.errors import RegistryUnavailable
from app.registry.lookup import Cursors, Lookup
from app.settings import PREFIX, ConfigError

logger = logging.getLogger(__name__)

_LOCK_WAIT_SECONDS: Final = 2


def engine_of(url: str) -> Engine:
    """Return an engine that waits for locks only briefly and loses nothing that it committed."""
    try:
        backend = make_url(url).get_backend_name()
    except ArgumentError:  # its text shows the URL, and with it a password
        raise ConfigError(
            f"{PREFIX}DATABASE_URL must be a SQLAlchemy URL, like postgresql+psycopg://user@host/name"
        ) from None
    if backend != "sqlite":
        return _engine_of_server(url)
    engine = create_engine(
        url,
        connect_args={"timeout": _LOCK_WAIT_SECONDS},
        hide_parameters=True,
        paramstyle="named",  # that of PostgreSQL is named too
    )
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _engine_of_server(url: str) -> Engine:
    engine = create_engine(
        url,
        pool_pre_ping=True,
        pool_timeout=_LOCK_WAIT_SECONDS,
        connect_args={"connect_timeout": _LOCK_WAIT_SECONDS},
        hide_parameters=True,
    )
    if engine.dialect.name == "postgresql":
        event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _prepare_postgresql(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        # In another one, the last hours of the year 9999 are of a year that the driver refuses.
        cursor.execute("SET TIME ZONE 'UTC'")
        cursor.execute(f"SET lock_timeout = '{_LOCK_WAIT_SECONDS}s'")
    connection.commit()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # WAL: readers never wait for the one writer. FULL: a returned kid survives a power cut.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


class Database:
    """Connections to the registry; they raise ``RegistryUnavailable`` if it does not answer.

    ``observe`` is told the seconds of each use of one.
    """

    def __init__(self, url: str, observe: Callable[[float], None]) -> None:
        self.engine = engine_of(url)
        self._observe = observe
        self._cursors = Cursors(self.engine)
        time_use(self.engine, observe)

    def lookup(self, query: Select[Any]) -> Lookup:
        """Return a cheaper way to read the one row of ``query``, for what every request reads."""
        return Lookup(self._cursors, query, self._observe)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection."""
        with translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Lend a connection whose changes are committed at the end, all or none."""
        with translated(), self.engine.begin() as connection:
            yield connection


@contextmanager
def translated() -> Iterator[None]:
    """Raise ``RegistryUnavailable`` for what a database says that does not answer."""
    try:
        yield
    except (IntegrityError, DataError):  # of values, not of the database
        raise
    # A ProgrammingError: no such table, where nobody has migrated. An InternalError: a PostgreSQL
    # that only reads. A plain DatabaseError: what is no SQLite database, or a damaged one.
    except (DBAPIError, PoolTimeoutError) as error:
        logger.warning("the registry answers: %s", getattr(error, "orig", error))
        raise RegistryUnavailable from error


@contextmanager
def engine_for(url: str) -> Iterator[Engine]:
    """Lend an engine for one ``with`` block; it raises ``RegistryUnavailable`` as above."""
    engine = engine_of(url)
    try:
        with translated():
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
