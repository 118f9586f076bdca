"""What is asked again and again, without what SQLAlchemy spends on any query."""

import time
from collections import namedtuple
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from sqlalchemy import CompoundSelect, Select
from sqlalchemy.exc import DBAPIError

from app.registry.databases.readers import Reader, Readers
from app.registry.databases.sqlite import FileIdentity


class Lookup:
    """Finds the one row of ``query``, which SQLAlchemy writes once, on a bare connection.

    Its own execution of a query takes several times as long as SQLite's, and a third of a request;
    so does its pool. ``record_of`` makes of a row what is found, and is kept until the database
    changes; but not where the row has an ``expires_at``, of which time makes something else.
    ``observe`` is told the seconds of each look.
    """

    def __init__(
        self,
        readers: Readers,
        query: Select[Any] | CompoundSelect[Any],
        record_of: Callable[[Any], Any],
        observe: Callable[[float], None],
    ) -> None:
        self._readers: Final = readers
        self._query: Final = query
        self._record_of: Final = record_of
        self._observe: Final = observe
        self._dialect: Final = readers.engine.dialect
        self._error: Final = self._dialect.loaded_dbapi.Error

    # Made at the first use: a command looks for one thing and another, and has all lookups.

    @cached_property
    def _sql(self) -> str:
        return str(self._query.compile(self._readers.engine))

    @cached_property
    def _row(self) -> Callable[..., Any]:
        return namedtuple("Row", self._query.selected_columns.keys())  # the query names them

    @cached_property
    def _conversions(self) -> list[Callable[[Any], Any]]:
        return [
            column.type.dialect_impl(self._dialect).result_processor(self._dialect, None)
            or _as_it_is
            for column in self._query.selected_columns
        ]

    def one(self, file: FileIdentity | None, /, **parameters: str | int) -> Any:
        """Return what ``record_of`` makes of the row, ``None`` if there is none.

        ``file`` is what ``Readers.file`` says now. Raises ``DBAPIError``.
        """
        started = time.perf_counter()
        try:
            return self._fetch(file, parameters)
        except self._error as error:
            raise DBAPIError.instance(
                self._sql, None, error, self._error, hide_parameters=True, dialect=self._dialect
            ) from None
        finally:
            self._observe(time.perf_counter() - started)

    def _fetch(self, file: FileIdentity | None, parameters: dict[str, str | int]) -> Any:
        reader = self._readers.own_on(file)
        if reader is not None:
            try:
                return self._read(reader, parameters)
            except self._error:  # no ``suppress``, which costs as much as to read
                pass  # the database may have come back since
        return self._read(self._readers.new(), parameters)

    def _read(self, reader: Reader, parameters: dict[str, str | int]) -> Any:
        kept, name = reader.kept(), (self, *parameters.values())  # before the row is read
        if name in kept:
            return kept[name]
        rows = reader.rows(self._sql, parameters)
        if not rows:
            return None
        row: Any = self._row(
            *(convert(value) for convert, value in zip(self._conversions, *rows, strict=True))
        )
        found = self._record_of(row)
        if getattr(row, "expires_at", None) is None:
            kept[name] = found
        return found


def _as_it_is(value: Any) -> Any:
    return value
