"""From a whole request to the bytes of its answer, in a thread of the worker."""

import time
from datetime import datetime
from functools import partial
from typing import Any, Final

from app.http.request_body import BodyWanted
from app.http.turns import TURN, TurnAwaited
from app.server.connection import Connection, Outcome
from app.server.host import Host
from app.server.intake import Progress
from app.server.turns import Turns

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Sink:
    """Stands for the socket while gunicorn writes: an answer goes out at once, or not at all."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        """Take a piece."""
        self._pieces.append(data)

    def content(self) -> memoryview:
        """Return all pieces."""
        return memoryview(b"".join(self._pieces))


def answer(worker: Host, connection: Connection, turns: Turns) -> None:
    """Put the answer to the request into ``connection``, and what becomes of it then."""
    intake, sink = connection.intake, Sink()
    try:
        is_kept = _call(worker, connection, turns, sink)
    except BodyWanted:
        connection.outgoing, connection.outcome = memoryview(_CONTINUE), Outcome.BODY
        return
    except TurnAwaited:
        connection.outcome = Outcome.TURN
        return
    except Exception as error:  # noqa: BLE001  # as gunicorn does; the client is told
        is_kept, sink = False, Sink()
        worker.handle_error(intake.request, sink, connection.client, error)
    connection.outgoing = sink.content()
    connection.outcome = Outcome.NEXT_REQUEST if is_kept else Outcome.END


def refuse(worker: Host, connection: Connection, error: Exception) -> None:
    """Put the answer to what is no request into ``connection``."""
    sink = Sink()
    worker.handle_error(None, sink, connection.client, error)
    connection.outgoing, connection.outcome = sink.content(), Outcome.END


def _call(worker: Host, connection: Connection, turns: Turns, sink: Sink) -> bool:
    """Have the application answer; tell whether the connection may be used again."""
    started, intake, request = datetime.now(), connection.intake, connection.intake.request
    request.body = intake.body()
    response, environ = connection.environ.of(
        request, connection.socket, connection.client, connection.server
    )
    response.sock = sink
    environ["wsgi.multithread"] = True
    environ[TURN] = partial(
        turns.take_as, connection, is_late=time.monotonic() > connection.patience
    )
    if worker.is_ending() or intake.progress is not Progress.WHOLE:
        response.force_close()
    _write(worker.wsgi(environ, response.start_response), response)
    if worker.log.access_log_enabled:
        worker.log.access(response, request, environ, datetime.now() - started)
    worker.note(request.method, response.status_code)
    return not response.should_close()


def _write(parts: Any, response: Any) -> None:
    try:
        for part in parts:
            response.write(part)
        response.close()
    finally:
        if hasattr(parts, "close"):
            parts.close()
