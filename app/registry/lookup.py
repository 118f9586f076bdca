"""The one query that every request makes, without what SQLAlchemy spends on any query."""

from collections import namedtuple
from typing import Any, Final

from sqlalchemy import Engine, Select
from sqlalchemy.exc import OperationalError


class Lookup:
    """Finds the one row of ``query``, which SQLAlchemy writes once, on a bare connection.

    Its own execution of a query takes several times as long as SQLite's, and a third of a request.
    """

    def __init__(self, engine: Engine, query: Select[Any]) -> None:
        dialect, columns = engine.dialect, query.selected_columns
        self._engine: Final = engine
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
        try:
            values = self._fetch(parameters)
        except self._errors as error:
            raise OperationalError(self._sql, None, error) from None
        if not values:
            return None
        return self._row(
            *(convert(value) for convert, value in zip(self._conversions, *values, strict=True))
        )

    def _fetch(self, parameters: dict[str, str]) -> Any:
        connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(self._sql, parameters)
            return cursor.fetchall()  # to the end: a read left open keeps SQLite's log from ending
        except self._errors:
            connection.invalidate()
            raise
        finally:
            connection.close()


def _as_it_is(value: Any) -> Any:
    return value
