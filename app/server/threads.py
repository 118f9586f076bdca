"""The threads of a worker: each answers a request to its end, and then the client's next one.

Whoever has just got an answer often asks again at once. So a thread stays with its connection for a
moment: else its next request wakes the thread that reads for all, which wakes one to answer, and
each time the interpreter changes hands.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from threading import Semaphore
from typing import Any, Final

from gunicorn.http.errors import ParseException

from app.server.answering import answer, refuse
from app.server.connection import Connection, Outcome
from app.server.host import Host
from app.server.intake import Progress
from app.server.turns import Turns

logger = logging.getLogger(__name__)

_ALWAYS_FREE: Final = 2
_MOST_READ_BYTES: Final = 64 * 1024


class Threads:
    """Answers connections that have a whole request, and whose turn it is.

    ``give_back`` is called with each when the thread leaves it. ``is_anybody_waiting`` tells
    whether there are requests that have no thread or no turn: then none stays, and two never do.
    """

    def __init__(
        self,
        worker: Host,
        turns: Turns,
        *,
        request_seconds: float,
        is_anybody_waiting: Callable[[], Any],
        give_back: Callable[[Connection], None],
    ) -> None:
        self._worker = worker
        self._turns = turns
        self._request_seconds = request_seconds
        self._is_anybody_waiting = is_anybody_waiting
        self._give_back = give_back
        self._pool = ThreadPoolExecutor(worker.cfg.threads)
        self._pool.submit(int)  # one thread is there always; without it the worker cannot serve
        self._given: SimpleQueue[Connection] = SimpleQueue()
        self._places = Semaphore(max(0, worker.cfg.threads - _ALWAYS_FREE))

    def give(self, connection: Connection) -> None:
        """Have a thread answer; nobody else touches the connection until it is given back."""
        self._given.put(connection)
        with suppress(RuntimeError):  # no thread more is to be had: one that is there takes it
            self._pool.submit(self._serve)

    def end(self) -> None:
        """Take no more connections."""
        self._pool.shutdown(wait=False)

    def _serve(self) -> None:
        connection = self._given.get()
        try:
            self._answer(connection)
            if self._places.acquire(blocking=False):
                try:
                    self._stay(connection)
                finally:
                    self._places.release()
        except Exception:
            connection.outgoing, connection.outcome = memoryview(b""), Outcome.END
            logger.exception("a connection is given up")
        finally:
            self._give_back(connection)

    def _stay(self, connection: Connection) -> None:
        while self._may_stay(connection) and self._has_next(connection):
            connection.count_request(self._request_seconds)
            self._answer(connection)

    def _answer(self, connection: Connection) -> None:
        """Answer, and send what the client takes at once."""
        connection.outgoing, connection.outcome = memoryview(b""), Outcome.END
        try:
            answer(self._worker, connection, self._turns)
            connection.send()
        except OSError:
            pass  # what is left is sent, or the client found to be gone, where all others are
        except Exception:
            logger.exception("a request is not answered")
        finally:
            self._turns.give_back(connection)

    def _may_stay(self, connection: Connection) -> bool:
        return (
            connection.outcome is Outcome.NEXT_REQUEST
            and not connection.outgoing
            and self._worker.alive
            and self._given.empty()
            and not self._is_anybody_waiting()
        )

    def _has_next(self, connection: Connection) -> bool:
        """Tell whether the next request has come within a moment, and whether it is its turn."""
        try:
            self._read(connection)
        except ParseException as error:
            refuse(self._worker, connection, error)
            return False
        is_whole = connection.intake.progress is not Progress.UNDER_WAY
        return is_whole and self._turns.take(connection)

    def _read(self, connection: Connection) -> None:
        """Wait once, then read what is there; what is large or slow is read where all others are.

        Else a byte every few milliseconds would keep a thread, for which there is no deadline here.
        """
        intake, receive = connection.renew(self._worker.cfg), connection.receive_soon
        while intake.progress is Progress.UNDER_WAY and intake.held_bytes < _MOST_READ_BYTES:
            try:
                data = receive()
            except OSError:  # it is seen again where all others are read
                return
            if not data:
                return
            connection.take(data)
            receive = connection.receive
