"""The one query that every request makes, without what SQLAlchemy spends on any query."""

import time
from collections import namedtuple
from collections.abc import Callable
from threading import local
from typing import Any, Final

from sqlalchemy import Engine, Select
from sqlalchemy.exc import OperationalError


class Lookup:
    """Finds the one row of ``query``, which SQLAlchemy writes once, on a bare connection.

    Its own execution of a query takes several times as long as SQLite's, and a third of a request;
    so does its pool. Each thread has a connection of its own, which reads and never begins
    anything. ``observe`` is told the seconds of each look.
    """

    def __init__(
        self, engine: Engine, query: Select[Any], observe: Callable[[float], None]
    ) -> None:
        dialect, columns = engine.dialect, query.selected_columns
        self._engine: Final = engine
        self._observe: Final = observe
        self._own: Final = local()
        self._sql: Final = str(query.compile(engine))
        self._row: Final = namedtuple("Row", columns.keys())  # type: ignore[misc]
        self._conversions: Final = [
            column.type.dialect_impl(dialect).result_processor(dialect, None) or _as_it_is
            for column in columns
        ]
        dbapi = dialect.loaded_dbapi
        self._errors: Final = (dbapi.OperationalError, dbapi.InterfaceError)

    def one(self, **parameters: str) -> Any:
        """Return the row as a named tuple, or ``None``; raise ``OperationalError``."""
        started = time.perf_counter()
        try:
            values = self._fetch(parameters)
        except self._errors as error:
            raise OperationalError(self._sql, None, error) from None
        finally:
            self._observe(time.perf_counter() - started)
        if not values:
            return None
        return self._row(
            *(convert(value) for convert, value in zip(self._conversions, *values, strict=True))
        )

    def _fetch(self, parameters: dict[str, str]) -> Any:
        cursor = getattr(self._own, "cursor", None)
        if cursor is not None:
            try:
                return _rows(cursor, self._sql, parameters)
            except self._errors:  # the database may have come back since; then a new one works
                self._own.cursor = None
        connection = self._connect()
        cursor = connection.cursor()
        rows = _rows(cursor, self._sql, parameters)
        self._own.connection, self._own.cursor = connection, cursor
        return rows

    def _connect(self) -> Any:
        connection: Any = self._engine.raw_connection()
        connection.detach()  # out of the pool, and closed with its thread
        if self._engine.dialect.name != "sqlite":  # there a read begins nothing
            connection.dbapi_connection.autocommit = True
        return connection.dbapi_connection


def _rows(cursor: Any, sql: str, parameters: dict[str, str]) -> Any:
    cursor.execute(sql, parameters)
    return cursor.fetchall()  # to the end: a read left open keeps SQLite's log from ending


def _as_it_is(value: Any) -> Any:
    return value
