"""The database: its engine, and connections that say in one way that it does not answer."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, Select, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.config import PREFIX, ConfigError
from app.errors import RegistryUnavailable
from app.registry.clock import time_use
from app.registry.lookup import Lookup

logger = logging.getLogger(__name__)

_LOCK_WAIT_SECONDS: Final = 2


def engine_of(url: str) -> Engine:
    """Return an engine that waits for locks only briefly and loses nothing that it committed."""
    try:
        backend = make_url(url).get_backend_name()
    except ArgumentError:  # its text shows the URL, and with it a password
        raise ConfigError(f"{PREFIX}DATABASE_URL is not a SQLAlchemy URL") from None
    if backend != "sqlite":
        return create_engine(url, pool_pre_ping=True, hide_parameters=True)
    engine = create_engine(
        url,
        connect_args={"timeout": _LOCK_WAIT_SECONDS},
        hide_parameters=True,
        paramstyle="named",  # that of PostgreSQL is named too
    )
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


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
        time_use(self.engine, observe)

    def lookup(self, query: Select[Any]) -> Lookup:
        """Return a cheaper way to read the one row of ``query``, for what every request reads."""
        return Lookup(self.engine, query, self._observe)

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
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        logger.warning("the registry answers: %s", getattr(error, "orig", error))
        raise RegistryUnavailable from error


def instant(value: datetime | None) -> datetime | None:
    """Return an instant as it was stored: SQLite forgets that it is in UTC."""
    return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value
