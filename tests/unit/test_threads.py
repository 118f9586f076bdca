"""A thread stays with its connection for a moment, and never at the cost of others."""

import socket
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config

from app.server.clock import Clock
from app.server.connection import Connection, Outcome
from app.server.intake import Intake, Progress
from app.server.threads import Threads
from app.server.turns import Turns
from tests.shared.waiting import PATIENCE_SECONDS

HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
REQUEST = HEAD + b"{}"

Deed = Callable[[], object]


def nothing() -> None:
    """Do nothing."""


class Asked(Connection):
    """A connection that has brought a request; ``client_end`` is the other end of it."""

    def __init__(self, cfg: Config, number: int) -> None:
        ours, self.client_end = socket.socketpair()
        client = ("127.0.0.1", number)
        super().__init__(ours, client, client, Intake(cfg, client, 1), Clock())
        self.take(REQUEST)
        self.requests = 1

    def sends(self, data: bytes) -> Deed:
        """Return what has the client send ``data``."""
        return lambda: self.client_end.sendall(data)


class Service:
    """Three threads that answer; each answer does the next deed of its connection before it ends.

    ``left`` are the connections that a thread has left, ``waiting`` those that have no turn.
    """

    def __init__(self) -> None:
        self.cfg = Config()
        self.cfg.set("http_parser", "python")
        self.cfg.set("threads", 3)
        self.worker: Any = SimpleNamespace(
            alive=True,
            cfg=self.cfg,
            handle_error=lambda _request, sink, _client, _error: sink.sendall(b"refused"),
            is_ending=lambda: False,
            log=SimpleNamespace(access_log_enabled=False),
            note=lambda *_: None,
            wsgi=self._answer,
        )
        self.waiting: list[Connection] = []
        self.left: SimpleQueue[Connection] = SimpleQueue()
        self._deeds: list[list[Deed]] = []
        self._asked: list[Asked] = []
        self._threads = Threads(
            self.worker,
            Turns(8),
            request_seconds=PATIENCE_SECONDS,
            is_anybody_waiting=lambda: self.waiting,
            give_back=self.left.put,
        )

    def connect(self, *deeds: Deed) -> Asked:
        """Return a connection that has brought a request."""
        asked = Asked(self.cfg, len(self._asked))
        self._asked.append(asked)
        self._deeds.append(list(deeds))
        return asked

    def _answer(self, environ: Any, start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read()
        self._deeds[int(environ["REMOTE_PORT"])].pop(0)()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def give(self, connection: Connection) -> None:
        """Have a thread answer."""
        self._threads.give(connection)

    def leaves(self, connection: Connection) -> bool:
        """Tell whether ``connection`` is the next that a thread leaves."""
        return self.left.get(timeout=PATIENCE_SECONDS) is connection

    def then(self, *deeds: Deed, connection: Asked) -> None:
        """Set what the answers on ``connection`` do."""
        self._deeds[connection.client[1]] = list(deeds)

    def end(self) -> None:
        """Let go of everything."""
        self._threads.end()
        for asked in self._asked:
            asked.socket.close()
            asked.client_end.close()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.end()


def asked(service: Service, comes: bytes, *, answers: int) -> Asked:
    """Return a connection that was left, on which ``comes`` had come before the first answer."""
    connection = service.connect()
    more = [nothing] * (answers - 1)
    service.then(connection.sends(comes), *more, connection=connection)
    service.give(connection)
    assert service.leaves(connection)
    return connection


def test_who_asks_again_is_answered_by_the_thread_that_is_there(service):
    connection = asked(service, 3 * REQUEST, answers=4)
    assert (connection.requests, connection.outcome) == (4, Outcome.BEGUN)
    assert connection.client_end.recv(10_000).count(b"HTTP/1.1 200 OK\r\n") == 4


def test_who_does_not_ask_again_is_left_as_one_who_has_not_begun(service):
    connection = asked(service, b"", answers=1)
    assert connection.outcome is Outcome.BEGUN
    assert not connection.intake.has_begun


@pytest.mark.parametrize("end", range(1, len(REQUEST)))
def test_what_has_come_of_a_request_is_kept(service, end):
    connection = asked(service, REQUEST[:end], answers=1)
    assert (connection.requests, connection.outcome) == (1, Outcome.BEGUN)
    assert connection.intake.has_begun
    progress = connection.intake.progress
    assert progress is Progress.UNDER_WAY
    connection.take(REQUEST[end:])
    assert connection.intake.progress is Progress.WHOLE
    assert connection.intake.body().read() == b"{}"


def test_nobody_stays_for_who_sends_a_byte_now_and_then(service, monkeypatch):
    connection, rest = service.connect(nothing, nothing), iter(REQUEST)

    def receive_soon(_: Connection) -> bytes:
        return bytes([next(rest)])

    monkeypatch.setattr(Connection, "receive_soon", receive_soon)
    service.give(connection)
    assert service.leaves(connection)
    assert (connection.requests, connection.outcome) == (1, Outcome.BEGUN)
    assert connection.intake.held_bytes == 1


def test_what_is_large_is_read_where_all_others_are(service):
    large = HEAD.replace(b"2", b"1000000") + bytes(100_000)
    connection = asked(service, large, answers=1)
    assert connection.intake.progress is Progress.UNDER_WAY
    assert connection.intake.held_bytes < len(large)


def test_what_is_no_request_is_refused(service):
    connection = asked(service, REQUEST + b"NONSENSE\r\n\r\n", answers=2)
    assert (bytes(connection.outgoing), connection.outcome) == (b"refused", Outcome.END)


def test_who_is_gone_is_left(service):
    connection = service.connect()
    service.then(connection.client_end.close, connection=connection)
    service.give(connection)
    assert service.leaves(connection)


def has_been_left_at_once(connection: Asked) -> bool:
    return (connection.requests, connection.outcome) == (1, Outcome.NEXT_REQUEST)


def test_nobody_stays_while_others_wait_for_a_turn(service):
    service.waiting.append(service.connect())
    assert has_been_left_at_once(asked(service, REQUEST, answers=1))


def test_nobody_stays_in_a_worker_that_stops(service):
    service.worker.alive = False
    assert has_been_left_at_once(asked(service, REQUEST, answers=1))


def test_two_threads_never_stay(service):
    begun, over = Event(), Event()
    staying = service.connect()

    def be_long() -> None:
        begun.set()
        over.wait(PATIENCE_SECONDS)

    service.then(staying.sends(REQUEST), be_long, connection=staying)
    service.give(staying)
    assert begun.wait(PATIENCE_SECONDS)
    assert has_been_left_at_once(asked(service, REQUEST, answers=1))
    over.set()
    assert service.leaves(staying)
    assert staying.requests == 2


def test_nobody_stays_while_others_wait_for_a_thread(service):
    over = Event()
    busy = [service.connect(lambda: over.wait(PATIENCE_SECONDS)) for _ in range(2)]
    for connection in busy:
        service.give(connection)
    first, second = service.connect(), service.connect(nothing)
    service.then(
        lambda: (first.client_end.sendall(REQUEST), service.give(second)), connection=first
    )
    service.give(first)
    assert service.leaves(first)
    assert has_been_left_at_once(first)
    assert service.leaves(second)
    over.set()
    assert {id(service.left.get(timeout=PATIENCE_SECONDS)) for _ in busy} == set(map(id, busy))
