"""What is peculiar to SQLite: a registry is a file, which somebody may move away."""

import os
import random
import sqlite3
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import DisconnectionError

from app.errors import RegistryCause, RegistryUnavailable

LOCK_WAIT_SECONDS: Final = 2
_PAUSE_SECONDS: Final = (0.001, 0.003)
_WAIT: Final = "PRAGMA busy_timeout = {:.0f}"
_NO_SCHEMA: Final = ("no such table", "no such column")

FileIdentity = tuple[int, int]


def path_of(engine: Engine) -> Path:
    """Return the file of the registry."""
    return Path(engine.url.database or "")


def identity_of(path: Path | str) -> FileIdentity | None:
    """Return device and inode of the file at ``path``, if there is one."""
    try:
        found = os.stat(path)  # noqa: PTH116  # a third of the time, and every request asks
    except OSError:
        return None
    return found.st_dev, found.st_ino


def prepare(engine: Engine, *, makes_file: bool) -> None:
    """Have connections lose nothing, and use only the file that is at the path of ``engine``."""
    event.listen(engine, "connect", _set_durability)
    path = path_of(engine)
    mode = "rwc" if makes_file else "rw"  # SQLite would make one where none is

    def name(_dialect: Dialect, record: Any, arguments: Any, named: Any) -> None:
        record.info["file"] = identity_of(path)  # what takes its place meanwhile is another one
        arguments[:] = [f"file:{quote(str(arguments[0]))}?mode={mode}"]
        named["uri"] = True

    def require_file(_connection: object, record: Any, _proxy: object) -> None:
        if record.info["file"] != identity_of(path):
            raise DisconnectionError("the file of the registry has been moved away")

    event.listen(engine, "before_cursor_execute", _begin_with, retval=True)
    event.listen(engine, "do_connect", name)
    event.listen(engine, "checkout", require_file)


def _begin_with(
    _connection: object, _cursor: object, statement: str, parameters: Any, *_more: object
) -> tuple[str, Any]:
    """Have Python before 3.13 begin a transaction with an INSERT in each locale.

    It looks for "insert" in small letters, and that of I is no i in Turkish: the row would be
    committed by itself.
    """
    if statement.startswith("INSERT"):
        statement = statement.replace("INSERT", "insert", 1)
    return statement, parameters


def _set_durability(connection: Any, _record: object) -> None:
    # WAL: readers never wait for the one writer. FULL: a returned kid survives a power cut.
    _execute(connection, "PRAGMA journal_mode=WAL")  # of a new file SQLite waits for nobody
    connection.execute("PRAGMA synchronous=FULL")


def begin_writing(connection: Connection) -> None:
    """Begin a transaction that writes, when nobody else does.

    In SQLite's own wait who has come first looks least often, so that of many who write without a
    pause some wait in vain.
    """
    own: Any = connection.connection.dbapi_connection
    own.execute(_WAIT.format(0))
    try:
        with suppress(sqlite3.DatabaseError):
            _execute(own, "BEGIN IMMEDIATE")
        if not own.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # to say what is wrong as all others do
    finally:
        own.execute(_WAIT.format(1000 * LOCK_WAIT_SECONDS))


def _execute(own: Any, statement: str) -> None:
    """Execute ``statement``, when nobody else has the file; all who wait look equally often."""
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            own.execute(statement)
        except sqlite3.DatabaseError as error:
            is_taken = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_taken or time.monotonic() >= deadline:
                raise
        else:
            return
        time.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311  # no secret


def cause_of(engine: Engine, answer: object) -> RegistryCause:
    """Return why the registry cannot be used, after SQLite has given ``answer``."""
    path = path_of(engine)
    try:
        path.stat()
    except PermissionError:
        return RegistryCause.PERMISSION
    except OSError:
        return RegistryCause.MISSING
    if not (_may(path, os.R_OK | os.W_OK) and _may(path.parent, os.W_OK | os.X_OK)):
        return RegistryCause.PERMISSION
    return RegistryCause.SCHEMA if str(answer).startswith(_NO_SCHEMA) else RegistryCause.REGISTRY


def is_there(engine: Engine) -> bool:
    """Tell whether there is a file; raise ``RegistryUnavailable`` if one may not look."""
    try:
        return stat.S_ISREG(path_of(engine).stat().st_mode)
    except PermissionError as error:
        raise RegistryUnavailable(RegistryCause.PERMISSION) from error
    except OSError:
        return False


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=True)
