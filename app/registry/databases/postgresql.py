"""What is peculiar to PostgreSQL: a server that hangs must not be waited for.

Its own limits (``statement_timeout``, ``lock_timeout``) end what takes long while it works. If it
is stopped, or the network swallows everything, only the client can end the wait.
"""

import threading
import time
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import Dialect

# Half a second apart, so that who only waits for a lock is not taken for who hangs.
_LOCK_SECONDS: Final = 1.1
_STATEMENT_SECONDS: Final = 1.4
_CLIENT_SECONDS: Final = 1.9
_CONNECT_SECONDS: Final = 2  # the least that the driver takes
_PAUSE_SECONDS: Final = 2.0
_PARAMETERS: Final = {
    "client_encoding": "UTF8",  # whatever the database has, and the driver would take for its own
    "connect_timeout": _CONNECT_SECONDS,
    "tcp_user_timeout": 2000,  # milliseconds
    "keepalives_idle": 10,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
_SETTINGS: Final = (
    # In another zone, the last hours of the year 9999 are of a year that the driver refuses.
    "SET TIME ZONE 'UTC'",
    "SET datestyle = 'ISO'",  # the driver reads no other
    f"SET lock_timeout = '{_LOCK_SECONDS}s'",
)


class Gate:
    """Lets nobody wait in vain: after a wait in vain, one use in two seconds tries again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opens_at = 0.0

    def enter(self) -> None:
        """Raise ``psycopg.OperationalError`` if the server hangs and it is not time to try."""
        if not self._opens_at:
            return
        with self._lock:
            now = time.monotonic()
            if now < self._opens_at:
                raise psycopg.OperationalError("the server has just been waited for in vain")
            self._opens_at = now + _PAUSE_SECONDS

    def close(self) -> None:
        """Note that the server was waited for in vain."""
        with self._lock:
            self._opens_at = time.monotonic() + _PAUSE_SECONDS

    def open(self) -> None:
        """Note that the server has answered."""
        self._opens_at = 0.0


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection that is closed when an answer takes too long."""

    gate: Gate | None = None  # while it is being made, the driver's own limit holds

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Return what the driver's wait returns; raise ``OperationalError`` if that takes long."""
        if self.gate is None:
            return super().wait(gen, interval, timeout)
        self.gate.enter()
        try:
            result = super().wait(gen, interval, timeout or _CLIENT_SECONDS)
        except psycopg.Error:
            if self.info.transaction_status is not TransactionStatus.ACTIVE:
                raise
            self.gate.close()
            self.close()
            raise psycopg.OperationalError("the server has not answered in time") from None
        self.gate.open()
        return result


def prepare(engine: Engine, *, is_patient: bool) -> None:
    """Have connections be in UTC and, unless ``is_patient``, wait for nothing longer than that.

    What an account or a database is set to otherwise counts for neither.
    """
    limit = 0 if is_patient else _STATEMENT_SECONDS
    gate = Gate()

    def connect(_dialect: Dialect, _record: object, arguments: Any, named: Any) -> Any:
        gate.enter()
        try:
            connection = ImpatientConnection.connect(*arguments, **named | _PARAMETERS)
        except psycopg.errors.ConnectionTimeout:
            gate.close()
            raise
        gate.open()
        connection.gate = None if is_patient else gate
        return connection

    def set_up(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            for setting in (*_SETTINGS, f"SET statement_timeout = '{limit}s'"):
                cursor.execute(setting)
            cursor.execute("SELECT pg_backend_pid()")
            if cursor.fetchone() != (connection.info.backend_pid,):
                # There is a pooler between, and others have prepared statements of the same names.
                connection.prepare_threshold = None
        connection.commit()

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", set_up)
