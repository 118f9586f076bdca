"""What becomes of connections in a loop whose time the test makes, with sockets that are real."""

import os
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import pytest
from gunicorn.config import Config

from app.http.turns import TURN, Caller
from app.server import connections
from app.server.clock import Clock, Deadlines
from app.server.connection import BLOCKED, Connection
from app.server.connections import Connections
from app.server.intake import Intake
from app.server.listening.spread import Spread
from app.server.refusals import refusal
from tests.shared.authority import Certificates
from tests.shared.waiting import PATIENCE_SECONDS, until

CLIENT = ("127.0.0.1", 1)
WHOLE = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
LARGE_BYTES = 80 * 1024
LARGE = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"
WRONG = b"WRONG\r\n\r\n"
OK = b"HTTP/1.1 200"
MOST_BYTES = 65_536
DEADLINES = Deadlines(header_seconds=3, request_seconds=4)
KEEPALIVE_SECONDS = 5
BEAT_SECONDS = 0.3  # at least as far apart are beats


def answer(_: Any, start_response: Any) -> Iterable[bytes]:
    """Answer."""
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


class Log:
    """Writes nothing."""

    access_log_enabled = False


class Host:
    """What the connections take for their worker; it counts its beats."""

    is_told = False
    alive = True
    slot = 0

    def __init__(self, listener: socket.socket, places: int, threads: int) -> None:
        self.PIPE = os.pipe()
        self.cfg = Config()
        for name, value in {
            "threads": threads,
            "worker_connections": places,
            "keepalive": KEEPALIVE_SECONDS,
            "graceful_timeout": 0,
        }.items():
            self.cfg.set(name, value)
        for end in self.PIPE:
            os.set_blocking(end, False)
        self.sockets = [listener]
        self.spread = Spread()
        self.tls = None
        self.log = Log()
        self.wsgi: Callable[[Any, Any], Iterable[bytes]] = answer
        self.beats = 0
        self.when_refusing: Callable[[], None] = lambda: None

    def beat(self) -> None:
        """Count."""
        self.beats += 1

    def handle_error(self, _request: Any, sink: Any, _client: Any, _error: Any) -> None:
        """Refuse, after whatever is to happen in just that moment."""
        self.when_refusing()
        sink.sendall(refusal(400, "bad_request", ""))

    def is_ending(self) -> bool:
        """Keep the connection."""
        return False

    def note(self, *_: Any) -> None:
        """Note an answer."""


class Loop:
    """The loop, in a thread, and the time that it sees."""

    def __init__(self, host: Host, clients: ExitStack) -> None:
        self.host = host
        self._clients = clients
        self._seconds = 0.0
        self.connections = Connections(host, DEADLINES, Clock(lambda: self._seconds))

    def connect(self) -> socket.socket:
        """Return a new connection, which the loop need not have seen yet."""
        address = self.host.sockets[0].getsockname()
        client = socket.create_connection(address, timeout=PATIENCE_SECONDS)
        return self._clients.enter_context(closing(client))

    def stand_still(self, seconds: float) -> None:
        """Let so much time go by before it looks again."""
        self._seconds += seconds

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Have it look at nobody during the block, and at all that have sent together then."""
        beat, has_come, is_over = self.host.beat, threading.Event(), threading.Event()

        def wait() -> None:
            has_come.set()
            is_over.wait(PATIENCE_SECONDS)

        self.host.beat = wait  # type: ignore[method-assign]  # for the block
        self._seconds += BEAT_SECONDS
        os.write(self.host.PIPE[1], b"1")
        assert has_come.wait(PATIENCE_SECONDS)
        try:
            yield
        finally:
            self.host.beat = beat  # type: ignore[method-assign]  # as it was
            is_over.set()

    def look(self, *, seconds: float = 0.0) -> None:
        """Have it look, at least once from beginning to end, while so much time goes by."""
        end = self._seconds + seconds
        while self._seconds <= end:
            for _ in range(2):
                self._seconds += BEAT_SECONDS
                until(partial(self._has_looked, self.host.beats))

    def _has_looked(self, beats: int) -> bool:
        """Wake it; tell whether it has come by since there were so many beats."""
        os.write(self.host.PIPE[1], b"1")
        return self.host.beats > beats


@contextmanager
def looping(*, places: int = 100, threads: int = 1) -> Iterator[Loop]:
    with ExitStack() as clients, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop = Loop(Host(listener, places, threads), clients)
        thread = threading.Thread(target=loop.connections.serve)
        thread.start()
        try:
            yield loop
        finally:
            loop.host.alive = False
            thread.join(PATIENCE_SECONDS)


def arrive(loop: Loop, client: socket.socket) -> None:
    """Return when what ``client`` has sent can be read: a busy kernel may bring it later."""
    [ours] = [
        one.socket
        for one in loop.connections._all
        if one.socket.getpeername() == client.getsockname()
    ]
    readable = select.poll()
    readable.register(ours, select.POLLIN)
    assert readable.poll(1000 * PATIENCE_SECONDS)


def assert_is_served(client: socket.socket) -> None:
    assert client.recv(MOST_BYTES).startswith(OK)


def assert_is_refused(client: socket.socket) -> None:
    assert client.recv(MOST_BYTES).startswith(b"HTTP/1.1 503")


# --- Deadlines ---


def test_who_sends_nothing_for_too_long_is_closed():
    with looping() as loop:
        client = loop.connect()
        loop.look(seconds=KEEPALIVE_SECONDS + 1)
        assert client.recv(1) == b""


def test_a_header_section_that_takes_too_long_is_408():
    with looping() as loop:
        client = loop.connect()
        client.sendall(WHOLE[:5])
        loop.look(seconds=DEADLINES.header_seconds + 1)
        head = client.recv(MOST_BYTES)
        assert head.startswith(b"HTTP/1.1 408")
        age = datetime.now(UTC) - parsedate_to_datetime(head.split(b"Date: ")[1][:29].decode())
        assert timedelta() <= age < timedelta(minutes=5)


@pytest.mark.parametrize("begun", [b"", POST[:5], POST, POST + b"a"])
def test_while_the_worker_is_stopped_nobody_is_late(begun):
    with looping() as loop:
        client = loop.connect()
        client.sendall(begun)
        loop.look()
        loop.stand_still(1000)
        loop.look()
        client.sendall((POST + b"ab").removeprefix(begun))
        loop.look()
        assert_is_served(client)


@pytest.mark.parametrize("begun", [b"", WHOLE[:5]])
def test_who_sends_in_the_turn_of_his_deadline_is_served(begun, monkeypatch):
    monkeypatch.setattr("app.server.clock._LONGEST_SECONDS", 10_000)
    with looping() as loop:
        client, other = loop.connect(), loop.connect()
        client.sendall(begun)
        loop.look()

        def send_at_last() -> None:
            client.sendall(WHOLE.removeprefix(begun))
            arrive(loop, client)
            loop.stand_still(1000)

        loop.host.when_refusing = send_at_last
        other.sendall(WRONG)
        loop.look()
        assert_is_served(client)


# --- Those who are refused ---


def test_who_cannot_even_be_refused_is_ended_and_nobody_else():
    def fail() -> None:
        raise IndexError

    with looping() as loop:
        client, other = loop.connect(), loop.connect()
        loop.host.when_refusing = fail
        client.sendall(WRONG)
        loop.look()
        assert client.recv(1) == b""
        other.sendall(WHOLE)
        loop.look()
        assert_is_served(other)


# --- TLS ---


@contextmanager
def secured(certificates: Certificates) -> Iterator[tuple[Connection, ssl.SSLSocket]]:
    """Give both ends of a connection; at the other one it is a failure if TLS does not end."""
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(*certificates.server)
    ours.num_tickets = 0
    others = ssl.create_default_context(cafile=str(certificates.authority.path))
    others.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    channel, other = socket.socketpair()
    connection = Connection(channel, CLIENT, CLIENT, Intake(Config(), CLIENT, 1), Clock())
    connection.secure(ours)
    with ThreadPoolExecutor() as pool, closing(connection):
        shaking = pool.submit(
            others.wrap_socket, other, server_hostname="localhost", suppress_ragged_eofs=False
        )
        until(partial(has_done, connection.shake_hands))
        with shaking.result() as client:
            yield connection, client


def has_done(step: Callable[[], None]) -> bool:
    try:
        step()
    except BLOCKED:
        return False
    return True


def test_that_tls_ends_is_said_as_soon_as_the_client_takes_it(tmp_path):
    with secured(Certificates(tmp_path)) as (connection, client):
        filled = 0
        with suppress(BlockingIOError):
            while True:
                filled += socket.socket.send(connection.socket, bytes(512))
        with pytest.raises(ssl.SSLWantWriteError):
            connection.end_sending()
        while filled:
            filled -= len(socket.socket.recv(client, filled))
        connection.end_sending()
        assert client.recv(1) == b""


def test_of_an_answer_that_is_cut_off_it_is_not_said_that_tls_ends(tmp_path):
    with secured(Certificates(tmp_path)) as (connection, client):
        connection.outgoing = memoryview(b"the rest of it")
        connection.close()
        with pytest.raises(ssl.SSLError, match=r"(?i)eof"):
            client.recv(1)


# --- Room ---


def test_who_came_just_now_is_not_ended_for_who_comes_next():
    with looping(places=2) as loop:
        clients = [loop.connect() for _ in range(3)]
        loop.look()
        for client in clients:
            client.sendall(WHOLE)
        loop.look()
        for client in clients[:2]:
            assert_is_served(client)
        clients[0].close()
        loop.look()
        assert_is_served(clients[2])


def test_who_was_silent_for_a_while_is_ended_for_who_comes_next():
    with looping(places=2) as loop:
        first, second = loop.connect(), loop.connect()
        loop.look(seconds=2)
        assert first.recv(1) == b""
        second.sendall(WHOLE)
        loop.look()
        assert_is_served(second)


def test_who_has_sent_is_not_ended_unread():
    with looping(places=4) as loop:
        first, second, third = (loop.connect() for _ in range(3))
        loop.look(seconds=2)

        def send() -> None:
            first.sendall(WHOLE)
            arrive(loop, first)

        def take_the_last_place() -> None:
            loop.host.when_refusing = send  # as soon as that is taken
            loop.connect().sendall(WRONG)

        loop.host.when_refusing = take_the_last_place
        third.sendall(WRONG)
        loop.look()
        assert_is_served(first)
        assert second.recv(1) == b""


@pytest.mark.parametrize("begun", [b"", WHOLE[:5]])
def test_who_comes_while_the_only_worker_is_leaving_is_served(begun):
    with looping() as loop:
        loop.host.cfg.set("graceful_timeout", int(PATIENCE_SECONDS))
        old = loop.connect()
        old.sendall(begun)
        loop.look()
        loop.host.alive = False
        loop.look()
        with loop.connect() as client:
            client.sendall(WHOLE)
            loop.look()
            assert_is_served(client)
        old.close()


# --- Memory ---


def test_many_large_bodies_that_come_at_once_are_not_all_read_first(monkeypatch):
    monkeypatch.setattr(connections, "_MOST_HELD_BYTES", LARGE_BYTES)
    held: list[int] = []
    with looping() as loop:
        clients = [loop.connect() for _ in range(8)]
        loop.look()
        bound = loop.connections._bound_memory

        def note(connection: Connection) -> None:
            bound(connection)
            held.append(sum(each.held_bytes for each in loop.connections._all))

        monkeypatch.setattr(loop.connections, "_bound_memory", note)
        with loop.standing():
            for client in clients:
                client.sendall(LARGE + bytes(LARGE_BYTES))
                arrive(loop, client)
        loop.look()
        assert_is_refused(clients[0])
    assert max(held) <= 3 * LARGE_BYTES


class Busy:
    """Answers who names himself in ``User-Agent``; at /batch, when it ``is_over``."""

    def __init__(self) -> None:
        self.is_under_way = threading.Event()
        self.is_over = threading.Event()
        self.asked = 0

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Answer."""
        self.asked += 1
        environ[TURN](Caller(environ["HTTP_USER_AGENT"], is_long=True))
        if environ["PATH_INFO"] == "/batch":
            self.is_under_way.set()
            self.is_over.wait(PATIENCE_SECONDS)
        return answer(environ, start_response)


def asked(path: str, caller: str, *, size: int = 0) -> bytes:
    """Return a whole request."""
    fields = f"Host: a\r\nUser-Agent: {caller}\r\nContent-Length: {size}"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + bytes(size)


@contextmanager
def busy() -> Iterator[tuple[Loop, Busy]]:
    """A loop in which each caller has one turn, and whose batches are over when the block is."""
    with looping(threads=4) as loop:
        loop.host.wsgi = app = Busy()
        try:
            yield loop, app
        finally:
            app.is_over.set()


def test_large_bodies_that_wait_for_their_turn_are_not_all_kept(monkeypatch):
    """Who asks too much waits, and gives way; nobody else does."""
    monkeypatch.setattr(connections, "_MOST_HELD_BYTES", 3 * LARGE_BYTES)
    with busy() as (loop, app):
        clients = [loop.connect() for _ in range(6)]
        for client in clients:
            client.sendall(asked("/batch", "alice", size=LARGE_BYTES))
            loop.look()
        other = loop.connect()
        other.sendall(asked("/", "bob", size=LARGE_BYTES))
        loop.look()
        assert_is_served(other)
        assert_is_refused(clients[1])
        app.is_over.set()
        for client in (clients[0], clients[-1]):
            assert_is_served(client)


# --- Turns ---


@contextmanager
def without_a_turn() -> Iterator[tuple[Loop, Busy, socket.socket]]:
    """Alice has her only turn; give another connection, which has brought a request of hers."""
    with busy() as (loop, app):
        kept, other = loop.connect(), loop.connect()
        kept.sendall(asked("/", "alice"))
        assert_is_served(kept)
        other.sendall(asked("/batch", "alice"))
        until(app.is_under_way.is_set)
        yield loop, app, kept


def test_nobody_waits_for_the_turn_of_who_asked_before_on_his_connection():
    """A proxy sends requests of many on one."""
    with without_a_turn() as (loop, _, shared):
        shared.sendall(asked("/", "bob"))
        loop.look()
        assert_is_served(shared)


def test_who_asks_the_same_again_waits_for_his_turn_without_a_thread():
    with without_a_turn() as (loop, app, same):
        before = app.asked  # twice for the other one, if it came before the first turn was back
        same.sendall(asked("/", "alice"))
        until(lambda: loop.connections._waiting)
        assert app.asked == before
        app.is_over.set()
        assert_is_served(same)


# --- Threads ---


def test_who_asks_at_the_stop_the_thread_that_stays_with_him_is_answered(monkeypatch):
    monkeypatch.setattr("app.server.connection._SOON", struct.pack("ll", int(PATIENCE_SECONDS), 0))
    with busy() as (loop, app), loop.connect() as client:
        loop.host.cfg.set("graceful_timeout", int(PATIENCE_SECONDS))
        client.sendall(asked("/", "alice"))
        assert_is_served(client)
        [connection] = loop.connections._all
        until(lambda: not connection.intake.has_begun)  # the thread waits for what comes
        loop.host.alive = False
        loop.look()
        client.sendall(asked("/batch", "alice"))
        until(app.is_under_way.is_set)
        loop.look(seconds=3)
        app.is_over.set()
        assert_is_served(client)


def _there_is_none(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_who_asks_while_no_thread_can_be_started_is_answered(monkeypatch):
    with looping() as loop:
        clients = [loop.connect() for _ in range(3)]
        monkeypatch.setattr(threading.Thread, "start", _there_is_none)
        for client in clients:
            client.sendall(WHOLE)
        loop.look()
        for client in clients:
            assert_is_served(client)


def test_a_worker_for_which_no_thread_can_be_started_does_not_begin(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", _there_is_none)
    with pytest.raises(RuntimeError), looping():
        pass
