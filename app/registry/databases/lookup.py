"""The one query that every request makes, without what SQLAlchemy spends on any query."""

import time
from collections import namedtuple
from collections.abc import Callable
from contextlib import suppress
from threading import local
from typing import Any, Final

from sqlalchemy import Engine, Select
from sqlalchemy.exc import DBAPIError

from app.registry.databases import sqlite


class Lookup:
    """Finds the one row of ``query``, which SQLAlchemy writes once, on a bare connection.

    Its own execution of a query takes several times as long as SQLite's, and a third of a request;
    so does its pool. ``observe`` is told the seconds of each look.
    """

    def __init__(
        self, cursors: "Cursors", query: Select[Any], observe: Callable[[float], None]
    ) -> None:
        dialect, columns = cursors.engine.dialect, query.selected_columns
        self._cursors: Final = cursors
        self._observe: Final = observe
        self._sql: Final = str(query.compile(cursors.engine))
        self._row: Final = namedtuple("Row", columns.keys())  # type: ignore[misc]
        self._conversions: Final = [
            column.type.dialect_impl(dialect).result_processor(dialect, None) or _as_it_is
            for column in columns
        ]
        self._dialect: Final = dialect
        self._error: Final = dialect.loaded_dbapi.Error

    def one(self, **parameters: str) -> Any:
        """Return the row as a named tuple, or ``None``; raise ``DBAPIError``."""
        started = time.perf_counter()
        try:
            values = self._fetch(parameters)
        except self._error as error:
            raise DBAPIError.instance(
                self._sql, None, error, self._error, hide_parameters=True, dialect=self._dialect
            ) from None
        finally:
            self._observe(time.perf_counter() - started)
        if not values:
            return None
        return self._row(
            *(convert(value) for convert, value in zip(self._conversions, *values, strict=True))
        )

    def _fetch(self, parameters: dict[str, str]) -> Any:
        cursor = self._cursors.own
        if cursor is not None:
            with suppress(self._error):  # the database may have come back since
                return _rows(cursor, self._sql, parameters)
        return _rows(self._cursors.new(), self._sql, parameters)


class Cursors:
    """One for each thread, on a connection of its own that reads and never begins anything."""

    def __init__(self, engine: Engine) -> None:
        self.engine: Final = engine
        self._path: Final = sqlite.path_of(engine) if engine.dialect.name == "sqlite" else None
        self._local: Final = _Own()

    @property
    def own(self) -> Any:
        """That of this thread, if it has one on the file that is there."""
        return self._local.cursor if self._local.file == self._file() else None

    def new(self) -> Any:
        """Return a new one for this thread, on a new connection."""
        if self._local.cursor is not None:
            self._local.cursor.connection.close()
        self._local.cursor = None
        self._local.cursor = self._connect().cursor()
        self._local.file = self._file()
        return self._local.cursor

    def _file(self) -> sqlite.FileIdentity | None:
        return sqlite.identity_of(self._path) if self._path else None

    def _connect(self) -> Any:
        connection: Any = self.engine.raw_connection()
        connection.detach()  # out of the pool, and closed with its thread
        if self.engine.dialect.name != "sqlite":  # there a read begins nothing
            connection.dbapi_connection.autocommit = True
        return connection.dbapi_connection


class _Own(local):
    """The cursor of each thread, and the file that it reads."""

    def __init__(self) -> None:
        self.cursor: Any = None
        self.file: sqlite.FileIdentity | None = None


def _rows(cursor: Any, sql: str, parameters: dict[str, str]) -> Any:
    cursor.execute(sql, parameters)
    return cursor.fetchall()  # to the end: a read left open keeps SQLite's log from ending


def _as_it_is(value: Any) -> Any:
    return value
