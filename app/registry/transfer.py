"""All rows of a registry, out of one database and into another."""

import tempfile
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    JSON,
    Connection,
    Date,
    DateTime,
    LargeBinary,
    MetaData,
    Table,
    delete,
    func,
    insert,
    select,
    text,
    tuple_,
)
from sqlalchemy.types import TypeEngine

from app.registry.databases.database import engine_for, instant
from app.registry.databases.reading import readable
from app.registry.records import LASTING, Key, record_of, spec_of
from app.registry.revisions import Age, alembic_config, compared, revision_at
from app.registry.tables import keys, metadata, uses
from hsm import KeySpec, Storage

Row = dict[str, Any]
TableRow = tuple[str, Row]

_OWN: Final = ("identity", "tallies")
"""Tables that are of a database, and of no other that gets its rows."""

_BATCH: Final = 1000
_OTHERS: Final = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


@contextmanager
def snapshot(url: str) -> Iterator[tuple[str, Iterator[TableRow]]]:
    """Give the revision of a registry and its rows at one instant, for one ``with`` block.

    Values are those of JSON, instants in UTC. Others go on writing. Raises ``RegistryUnavailable``.
    """
    revision = revision_at(url)
    with (
        engine_for(url, is_maintenance=True) as engine,
        _reading_at_one_instant(engine.connect()) as connection,
    ):
        yield str(revision.found), _rows(connection)


@contextmanager
def _reading_at_one_instant(connection: Connection) -> Iterator[Connection]:
    is_sqlite = connection.dialect.name == "sqlite"
    if not is_sqlite:
        connection.execution_options(isolation_level="REPEATABLE READ")
    with connection:
        if is_sqlite:  # its driver begins nothing to read
            connection.exec_driver_sql("BEGIN")
        yield connection


def _rows(connection: Connection) -> Iterator[TableRow]:
    for table in _tables(connection):
        key = list(table.primary_key)
        names = select(*key).order_by(*key).limit(_BATCH)
        batch: Sequence[Any] = connection.execute(names).all()
        while batch:
            rows = select(table).where(tuple_(*key).in_(batch)).order_by(*key)
            for row in readable(connection, rows, partial(_row_as_json, table)):
                yield table.name, row
            batch = connection.execute(names.where(tuple_(*key) > tuple_(*batch[-1]))).all()


def _tables(connection: Connection) -> list[Table]:
    """Return the tables of what can be moved; an older schema has fewer.

    Others may have tables beside them.
    """
    there = MetaData()
    there.reflect(connection, only=lambda name, _there: name in metadata.tables)
    tables = [table for table in there.sorted_tables if table.name not in _OWN]
    for column in (column for table in tables for column in table.c):
        if isinstance(column.type, JSON):  # what is absent must not become a null of JSON
            column.type.none_as_null = True
    return tables


def _row_as_json(table: Table, row: Any) -> Row:
    return {name: _as_json(value) for name, value in zip(table.c.keys(), row, strict=True)}


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    found = instant(value) if isinstance(value, datetime) else value
    return found.isoformat() if isinstance(found, date) else found


@contextmanager
def brought_up_to_date(revision: str, rows: Iterable[TableRow]) -> Iterator[Iterable[TableRow]]:
    """Give ``rows`` of an older ``revision`` as the newest has them, migrated in a scratch copy."""
    if compared(revision).age is Age.CURRENT:
        yield rows
        return
    import alembic.command  # noqa: PLC0415  # see ``alembic_config``

    with tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory:
        url = f"sqlite:///{Path(directory) / 'registry.db'}"
        alembic.command.upgrade(alembic_config(url), revision)
        replace_all(url, rows)
        alembic.command.upgrade(alembic_config(url), "head")
        with snapshot(url) as (_, newest):
            yield newest


def replace_all(url: str, rows: Iterable[TableRow]) -> None:
    """Put ``rows`` in the place of all that there are, or change nothing."""
    with engine_for(url, is_maintenance=True) as engine, engine.begin() as connection:
        tables = {table.name: table for table in _tables(connection)}
        for table in tables.values():
            connection.execute(delete(table))
        for name, batch in _batches(rows):
            table = tables[name]
            connection.execute(insert(table), [_typed(table, row) for row in batch])


def _batches(rows: Iterable[TableRow]) -> Iterator[tuple[str, list[Row]]]:
    rows = iter(rows)
    while some := list(islice(rows, _BATCH)):
        by_table: defaultdict[str, list[Row]] = defaultdict(list)
        for name, row in some:
            by_table[name].append(row)
        yield from by_table.items()


def _typed(table: Table, row: Row) -> Row:
    return {name: _of_json(table.c[name].type, value) for name, value in row.items()}


def _of_json(column_type: TypeEngine[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(column_type, LargeBinary):
        return b64decode(value)
    if isinstance(column_type, (Date, DateTime)):
        return column_type.python_type.fromisoformat(value)
    return value


def number_of_rows(url: str) -> int:
    """Return how many rows all tables have together; raise ``RegistryUnavailable``."""
    if revision_at(url).age is Age.MISSING:
        return 0
    with engine_for(url, is_maintenance=True) as engine, engine.connect() as connection:
        return sum(
            connection.scalar(select(func.count()).select_from(table)) or 0
            for table in _tables(connection)
        )


def encryptions(url: str) -> Mapping[str, int]:
    """Return how many encryptions are counted for each kid, where a registry is up to date."""
    if revision_at(url).age is not Age.CURRENT:
        return {}
    with engine_for(url, is_maintenance=True) as engine, engine.connect() as connection:
        query = select(keys.c.kid, keys.c.encryptions)
        return dict(readable(connection, query, lambda row: (row.kid, int(row.encryptions))))


def days_of_use(url: str) -> Mapping[str, str]:
    """Return the last day of use of each kid, like 2026-01-31, where a registry is up to date."""
    if revision_at(url).age is not Age.CURRENT:
        return {}
    with engine_for(url, is_maintenance=True) as engine, engine.connect() as connection:
        query = select(uses)
        return dict(readable(connection, query, lambda row: (row.kid, row.day.isoformat())))


def connections_of_others(url: str) -> int:
    """Return how many others a server of databases has connected to this one."""
    with engine_for(url) as engine:
        if engine.dialect.name != "postgresql":
            return 0
        with engine.connect() as connection:
            return int(connection.scalar(_OTHERS) or 0)


def key_of(row: Row) -> Key:
    """Return the key of a row as JSON has it."""
    return record_of(SimpleNamespace(**_typed(keys, row)))


def specs_of(rows: Iterable[TableRow]) -> Mapping[UUID, KeySpec]:
    """Return what the keys among ``rows`` are that are to be on the token."""
    lasting = (row for table, row in rows if table == "keys" and row["state"] in LASTING)
    return {
        UUID(row["kid"]): spec_of(SimpleNamespace(**row))
        for row in lasting
        if row["storage"] == Storage.TOKEN
    }
