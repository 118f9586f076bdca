"""Connections that only read, one for each thread, and what they have read already."""

from collections.abc import Hashable
from threading import local
from typing import Any, Final

from sqlalchemy import Engine

from app.registry.databases import sqlite

_MOST_KEPT: Final = 1_000


class Reader:
    """A connection of one thread, which never begins anything.

    ``kept`` is for what was found by it, and is empty after any other connection has committed:
    SQLite counts that (``PRAGMA data_version``), and this one never writes. So who asks for it
    before a row is read never gets an old one. PostgreSQL has no such count without a question
    that costs as much as the row: there nothing is kept.
    """

    def __init__(self, connection: Any, file: sqlite.FileIdentity | None) -> None:
        self.file: Final = file
        self.connection: Final = connection
        self._cursor: Final = connection.cursor()
        self._version: Any = None
        self._kept: dict[Hashable, Any] = {}

    def rows(self, sql: str, parameters: Any = ()) -> Any:
        """Return all rows: a read left open keeps SQLite's log from ending."""
        self._cursor.execute(sql, parameters)
        return self._cursor.fetchall()

    def kept(self) -> dict[Hashable, Any]:
        """Return what was found, and is still so."""
        if self.file is None:
            return {}
        version = self.rows("PRAGMA data_version")
        if version != self._version or len(self._kept) >= _MOST_KEPT:
            self._version, self._kept = version, {}
        return self._kept


class Readers:
    """One for each thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine: Final = engine
        is_file = engine.dialect.name == "sqlite"
        self._path: Final = str(sqlite.path_of(engine)) if is_file else None
        self._local: Final = _Own()

    @property
    def file(self) -> sqlite.FileIdentity | None:
        """What distinguishes the file that is there from all others, if there is one."""
        return sqlite.identity_of(self._path) if self._path else None

    def own_on(self, file: sqlite.FileIdentity | None) -> Reader | None:
        """Return that of this thread, if it has one on ``file``."""
        reader = self._local.reader
        return reader if reader is not None and reader.file == file else None

    def new(self) -> Reader:
        """Return a new one for this thread, on a new connection."""
        if self._local.reader is not None:
            self._local.reader.connection.close()
        self._local.reader = None
        file = self.file  # before it is opened: what takes its place meanwhile is another one
        self._local.reader = Reader(self._connect(), file)
        return self._local.reader

    def _connect(self) -> Any:
        connection: Any = self.engine.raw_connection()
        connection.detach()  # out of the pool, and closed with its thread
        if self.engine.dialect.name != "sqlite":  # there a read begins nothing
            connection.dbapi_connection.autocommit = True
        return connection.dbapi_connection


class _Own(local):
    """The reader of each thread."""

    reader: Reader | None = None
