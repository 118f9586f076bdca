"""What is asked of the registry."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import event

from app.registry import Registry
from app.registry.databases.readers import Reader


@contextmanager
def reads_of(registry: Registry) -> Iterator[list[str]]:
    """Note the statements that the registry executes in a ``with`` block, on any connection.

    Whether anything has changed is no statement of its.
    """
    noted: list[str] = []
    rows = Reader.rows

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        noted.append(statement)

    def look(reader: Reader, sql: str, parameters: Any = ()) -> Any:
        if not sql.startswith("PRAGMA"):
            noted.append(sql)
        return rows(reader, sql, parameters)

    engine = registry._database.engine
    with ExitStack() as stack:
        stack.enter_context(patch.object(Reader, "rows", look))
        event.listen(engine, "before_cursor_execute", note)
        stack.callback(event.remove, engine, "before_cursor_execute", note)
        yield noted
