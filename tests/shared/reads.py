"""What is asked of the registry, and whether anything is."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import event

from app.registry import Registry
from app.registry.databases.readers import Reader
from app.service import service_of
from tests.shared.injector import NAMES, Injector


@contextmanager
def reads_of(registry: Registry) -> Iterator[list[str]]:
    """Note the statements that this thread has the registry execute in a ``with`` block.

    On whatever connection; whether anything has changed is no statement of its. Others ask now
    and then whether the registry answers.
    """
    noted: list[str] = []
    rows, own = Reader.rows, threading.get_ident()

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if threading.get_ident() == own:
            noted.append(statement)

    def look(reader: Reader, sql: str, parameters: Any = ()) -> Any:
        if not sql.startswith("PRAGMA"):
            note(None, None, sql)
        return rows(reader, sql, parameters)

    engine = registry._database.engine
    with ExitStack() as stack:
        stack.enter_context(patch.object(Reader, "rows", look))
        event.listen(engine, "before_cursor_execute", note)
        stack.callback(event.remove, engine, "before_cursor_execute", note)
        yield noted


@contextmanager
def unasked(application: Any, chaos: Injector) -> Iterator[None]:
    """Hold that this thread asks neither the registry nor the token in a ``with`` block."""
    calls = chaos.count_own(*NAMES)
    with reads_of(service_of(application).registry) as reads:
        yield
    assert (reads, sum(calls.values())) == ([], 0)
