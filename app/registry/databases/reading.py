"""Rows that cannot be read, and take no others with them."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Row, Select, select
from sqlalchemy.exc import DataError

from app.errors import RegistryUnavailable

logger = logging.getLogger(__name__)

Record = TypeVar("Record")

_NONE: Final[Mapping[str, Any]] = MappingProxyType({})

UNREADABLE: Final = (DataError, ValueError, TypeError, OverflowError)
"""What drivers, SQLAlchemy and we raise for a value that is none of its column's type."""


def readable(
    connection: Connection,
    query: Select[Any],
    record_of: Callable[[Any], Record],
    lost: list[Row[Any]] | None = None,
    parameters: Mapping[str, Any] = _NONE,
) -> list[Record]:
    """Return a record of each row of ``query``, but of those that cannot be read.

    Those are logged, and their primary keys are added to ``lost``. All rows are of one table. They
    are read at once, and one by one only if that fails.
    """
    try:
        return [record_of(row) for row in connection.execute(query, parameters)]
    except UNREADABLE:
        lost = [] if lost is None else lost
        return list(_one_by_one(connection, query, record_of, lost, parameters))


def _one_by_one(
    connection: Connection,
    query: Select[Any],
    record_of: Callable[[Any], Record],
    lost: list[Row[Any]],
    parameters: Mapping[str, Any],
) -> Iterator[Record]:
    [table] = {column.table for column in query.selected_columns}
    key = list(table.primary_key)
    keys_of_all = query.with_only_columns(*key, maintain_column_froms=True)
    for values in connection.execute(keys_of_all, parameters):
        its = [column == value for column, value in zip(key, values, strict=True)]
        try:
            yield record_of(connection.execute(select(*query.selected_columns).where(*its)).one())
        except UNREADABLE as error:
            lost.append(values)
            _log(table, "|".join(map(str, values)), error)


def readable_sums(
    connection: Connection, query: Select[Any], record_of: Callable[[Any], Record], name: str
) -> list[Record]:
    """Return a record of each row of ``query``, of sums by ``name``, but of those that are none."""
    found = []
    for row in connection.execute(query):
        try:
            found.append(record_of(row))
        except UNREADABLE as error:
            _log(name, "|".join(map(str, row)), error)
    return found


def _log(table: object, which: str, error: Exception) -> None:
    logger.error("a row of %s cannot be read: %s: %s", table, which, type(error).__name__)


def is_of_a_row(error: RegistryUnavailable) -> bool:
    """Tell whether it is one row that cannot be read, and the database answers."""
    return isinstance(error.__cause__, UNREADABLE)


@contextmanager
def legible() -> Iterator[None]:
    """Raise ``RegistryUnavailable`` for a row that cannot be read, and that somebody asked for."""
    try:
        yield
    except UNREADABLE as error:
        logger.error("a row cannot be read: %s", type(error).__name__)  # noqa: TRY400  # as above
        raise RegistryUnavailable from error
