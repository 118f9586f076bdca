"""Callers that are slow, gone, or a thousand at a time."""

import asyncio
import http.client
import json
import os
import resource
import signal
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from scripts.throwaway import Server, make_token
from scripts.workers import workers_of
from tests.shared.api import PREFIX, Api
from tests.shared.authority import Certificates
from tests.shared.examples import rounds
from tests.shared.forks import server
from tests.shared.waiting import ANSWER, LIFE, LONGEST_ANSWER, PATIENCE_SECONDS, START, STOP, until

DATA = "ZGF0YQ"
MIB = 2**20
THREADS = 16
SLOW = 3 * THREADS
SHORT = {"JOSE_HSM_HEADER_SECONDS": "2", "JOSE_HSM_REQUEST_SECONDS": "3"}
LONG = {"JOSE_HSM_HEADER_SECONDS": "600", "JOSE_HSM_REQUEST_SECONDS": "600"}
LISTENING, NOBODYS = "0A", "0"  # as /proc/net/tcp has it
HEAD = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
LARGE_FILE = b"GET /docs/swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
CONNECTIONS = 1_000
ROUNDS = rounds(3, short=2)


def head(path: str, body: bytes) -> bytes:
    return (
        f"POST {PREFIX}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()


def connected(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=ANSWER.seconds)


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def mac_body(url: str) -> bytes:
    kid = Api.over_http(url).create(kty="oct", alg="HS256")["kid"]
    return json.dumps({"kid": kid, "alg": "HS256", "data": DATA}).encode()


def sockets_of(pid: int) -> int:
    """Return how many sockets a worker has open."""
    return sum(is_socket(file) for file in Path(f"/proc/{pid}/fd").iterdir())


def is_socket(file: Path) -> bool:
    try:
        return str(file.readlink()).startswith("socket:")
    except FileNotFoundError:
        return False


@contextmanager
def crowd_of(number: int, connect: Callable[[], socket.socket]) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(closing(connect())) for _ in range(number)]


@contextmanager
def loaded(settings: Mapping[str, str], **options: Any) -> Iterator[Server]:
    """Serve with one worker, and begin when it has answered: how soon is not the claim here."""
    with server(settings, workers=1) as running:
        scheme = "https" if options else "http"
        url = running.url.replace("http", scheme, 1)
        requests.get(f"{url}/health/live", timeout=START.seconds, **options)
        yield running


def assert_others_are_served(url: str, **options: Any) -> None:
    """On new connections: where there are several workers, each has its turn."""
    for _ in range(8):
        answer = requests.get(f"{url}/health/live", timeout=LIFE.seconds, **options)
        assert answer.json() == {"status": "live"}


def answer_of(client: socket.socket) -> tuple[int, dict[str, str]]:
    with closing(http.client.HTTPResponse(client)) as answer:
        answer.begin()
        return answer.status, json.loads(answer.read())


def do_all_accept(running: Server) -> bool:
    """Tell whether each worker takes some of the connections that are made now."""
    before = {pid: sockets_of(pid) for pid in workers_of(running.process.pid)}
    with crowd_of(8, lambda: connected(running.url)):
        assert_others_are_served(running.url)
        return all(sockets_of(pid) > number for pid, number in before.items())


# --- Slow ones ---


def test_callers_who_send_a_byte_now_and_then_hold_up_nobody(environment):
    with server(environment | LONG, workers=1) as running:
        body = mac_body(running.url)
        with crowd_of(SLOW, lambda: connected(running.url)) as slow:
            for client in slow:
                client.sendall(head("/mac", body))
            expected = Api.over_http(running.url).ok("/mac", json.loads(body))
            for sent in range(5):
                for client in slow:
                    client.sendall(body[sent : sent + 1])
                assert Api.over_http(running.url).ok("/mac", json.loads(body)) == expected
                assert_others_are_served(running.url)
            for client in slow:  # and those who end at last are answered as everybody
                client.sendall(body[5:])
                assert answer_of(client) == (200, expected)


UNFINISHED = {
    "body": head("/mac", bytes(100)) + b"{",
    "chunked body": head("/mac", b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    + b"5\r\n{",
    "header section": HEAD + b"X: a",
    "one byte": b"G",
}


@contextmanager
def unfinished(url: str) -> Iterator[list[socket.socket]]:
    """So many of each kind as would take three times all threads."""
    with crowd_of(SLOW * len(UNFINISHED), lambda: connected(url)) as slow:
        for client, begun in zip(slow, SLOW * list(UNFINISHED.values()), strict=True):
            client.sendall(begun)
        yield slow


def test_requests_that_do_not_end_hold_up_nobody(environment):
    with loaded(environment | LONG) as running, unfinished(running.url) as slow:
        assert_others_are_served(running.url)
        assert not any(has_ended(client) for client in slow)


def has_ended(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) is not None
    except BlockingIOError:
        return False


def test_requests_that_do_not_come_in_time_are_408(environment):
    with loaded(environment | SHORT) as running, unfinished(running.url) as slow:
        for client in slow:
            status, refusal = answer_of(client)
            assert (status, refusal["error"]) == (408, "request_timeout")
            assert client.recv(1) == b""


def test_a_request_that_goes_on_coming_ends_by_its_deadline(environment):
    with loaded(environment | SHORT) as running, closing(connected(running.url)) as slow:
        slow.sendall(HEAD)
        slow.settimeout(0.1)
        started = time.monotonic()
        while time.monotonic() < started + PATIENCE_SECONDS:
            slow.sendall(b"X")
            try:
                assert slow.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 408"
                break
            except TimeoutError:
                continue
        else:
            pytest.fail("the request goes on")


def alice(certificates: Certificates) -> dict[str, Any]:
    """Return what ``requests`` needs to be her."""
    return {"cert": certificates.alice, "verify": str(certificates.authority.path)}


@contextmanager
def silent_in_tls(
    environment: Mapping[str, str], certificates: Certificates
) -> Iterator[tuple[Server, list[socket.socket]]]:
    settings = {**environment, **certificates.settings}
    with (
        loaded(settings, **alice(certificates)) as running,
        crowd_of(SLOW, lambda: connected(running.url)) as slow,
    ):
        for client in slow[::2]:
            client.sendall(b"\x16\x03\x01")
        yield running, slow


def test_handshakes_that_do_not_end_hold_up_nobody(environment, tmp_path):
    certificates = Certificates(tmp_path)
    patient = {"JOSE_HSM_HEADER_SECONDS": "600"}
    with silent_in_tls(environment | patient, certificates) as (running, slow):
        url = running.url.replace("http://", "https://")
        assert_others_are_served(url, **alice(certificates))
        assert not any(has_ended(client) for client in slow)


def test_over_tls_there_are_deadlines_too(environment, tmp_path):
    certificates = Certificates(tmp_path)
    context = ssl.create_default_context(cafile=str(certificates.authority.path))
    context.load_cert_chain(*certificates.alice)
    with silent_in_tls(environment | SHORT, certificates) as (running, slow):
        # Who is slow in the handshake is cut off, too: the claim is of one that has ended.
        with until(lambda: served_over_tls(context, running.url)) as client:
            client.sendall(HEAD)
            status, refusal = answer_of(client)
            assert (status, refusal["error"]) == (408, "request_timeout")
        for silent in slow:
            assert silent.recv(1) == b""


def served_over_tls(context: ssl.SSLContext, url: str) -> ssl.SSLSocket | None:
    """Return a connection on which one request has been answered; ``None`` if it was cut off."""
    try:
        client = context.wrap_socket(connected(url), server_hostname="localhost")
    except OSError:
        return None
    try:
        client.sendall(HEAD + b"\r\n")
        assert answer_of(client) == (200, {"status": "live"})
    except (OSError, http.client.HTTPException):
        client.close()
        return None
    return client


def test_clients_that_never_read_their_answers_hold_up_nobody_and_end(environment):
    def connect() -> socket.socket:
        address = urlsplit(running.url)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(ANSWER.seconds)
        client.connect((address.hostname, address.port))
        client.sendall(6 * LARGE_FILE)
        return client

    with loaded(environment | SHORT) as running, crowd_of(SLOW, connect) as slow:
        assert_others_are_served(running.url)  # so all who came before have been accepted
        until(lambda: not accepted_at(running.url))
        assert all(len(read_all(client)) < 6 * 1_700_000 for client in slow[:4])


def accepted_at(url: str) -> int:
    """Return how many connections the workers have that listen at ``url``."""
    port = f":{urlsplit(url).port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    return sum(
        local.endswith(port) and state != LISTENING and inode != NOBODYS
        for _, local, _, state, _, _, _, _, _, inode, *_ in rows
    )


def read_all(client: socket.socket) -> bytes:
    pieces = []
    try:
        while piece := client.recv(MIB):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def test_clients_that_stay_after_the_end_hold_up_nobody(environment):
    with (
        loaded(environment) as running,
        crowd_of(20, lambda: connected(running.url)) as staying,
    ):
        for client in staying:
            client.sendall(HEAD + b"Connection: close\r\n\r\n")
        for client in staying:
            assert answer_of(client) == (200, {"status": "live"})
        assert_others_are_served(running.url)


def test_who_comes_is_served_where_silent_ones_have_taken_every_place(environment):
    few = {"GUNICORN_CMD_ARGS": "--worker-connections 40 --threads 4"}
    with (
        loaded(environment | few) as running,
        crowd_of(120, lambda: connected(running.url)) as slow,
    ):
        for client in slow[::2]:
            client.sendall(HEAD)
        assert_others_are_served(running.url)


def test_large_bodies_that_do_not_end_take_bounded_memory(environment):
    with server(environment | LONG, workers=1) as running:
        body = mac_body(running.url)
        large = json.dumps({**json.loads(body), "padding": "x" * (3 * MIB // 2)}).encode()
        (pid,) = workers_of(running.process.pid)
        before = resident_kib(pid)
        unfinished = bytes(2 * MIB - 1)
        with crowd_of(90, lambda: connected(running.url)) as slow:
            for client in slow:
                client.sendall(head("/mac", bytes(2 * MIB)) + unfinished)
            status, refusal = answer_of(slow[0])  # who takes longest gives way
            assert (status, refusal["error"]) == (503, "unavailable")
            answer = requests.post(
                f"{running.url}{PREFIX}/mac",
                data=large,
                headers={"Content-Type": "application/json"},
                timeout=ANSWER.seconds,
            )
            assert answer.status_code == 200
            assert resident_kib(pid) - before < 120 * 1024


def test_a_stop_waits_for_who_is_sending_and_not_for_who_is_silent(environment):
    with server(environment | {"JOSE_HSM_REQUEST_SECONDS": "40"}, workers=1) as running:
        body = mac_body(running.url)
        with (
            crowd_of(20, lambda: connected(running.url)),
            closing(connected(running.url)) as sending,
        ):
            sending.sendall(head("/mac", body) + body[:5])
            assert_others_are_served(running.url)
            (pid,) = workers_of(running.process.pid)
            os.kill(running.process.pid, signal.SIGTERM)
            until(lambda: refuses(running.url))
            sending.sendall(body[5:])
            assert answer_of(sending)[0] == 200
            assert running.process.wait(STOP.seconds) == 0
            assert not Path(f"/proc/{pid}").exists()


def refuses(url: str) -> bool:
    """Tell whether nobody listens any more; the last to come may be cut off instead."""
    try:
        connected(url).close()
    except ConnectionError:
        return True
    return False


# --- Those who are gone ---


@pytest.mark.parametrize("kind", [{"kty": "RSA", "alg": "PS256"}, {"kty": "oct", "alg": "A256GCM"}])
def test_a_key_whose_caller_hangs_up_is_whole_and_audited(kind, tmp_path):
    settings = make_token(tmp_path / "state")
    with server(settings, workers=1) as running:
        body = json.dumps(kind).encode()
        Api.over_http(running.url).ok("/random", {"bytes": 1})  # the token is open
        for number in range(1, 4):  # one by one: nobody waits for a pair for long, and gets 503
            with connected(running.url) as client:
                client.sendall(head("/keys", body) + body)
            until(partial(have_been_created, settings, number))
        for line in created(settings):
            alg = kind["alg"]
            if alg == "PS256":
                use = "/sign", {"kid": line["new_kid"], "alg": alg, "data": ""}
            else:
                use = "/encrypt", {"kid": line["new_kid"], "alg": "dir", "enc": alg, "data": ""}
            Api.over_http(running.url).ok(*use)


def have_been_created(settings: dict[str, str], number: int) -> bool:
    return len(created(settings)) == number


def created(settings: dict[str, str]) -> list[dict[str, str]]:
    """Return the audit lines of creations."""
    log = Path(settings["JOSE_HSM_STATE_DIR"], "audit.log")
    text = log.read_text() if log.exists() else ""
    lines = [
        json.loads(line) for line in text.split("\n")[:-1]
    ]  # what is not ended is being written
    return [line for line in lines if line["new_kid"]]


@pytest.fixture
def thousands_of_files() -> Iterator[None]:
    """Let this process open as many: a shell of Debian's lets it have 1,024 together."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * CONNECTIONS, most))
    except ValueError:
        pytest.skip(f"no process may have more than {most} files open here")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may see what a worker has open")
@pytest.mark.usefixtures("thousands_of_files")
def test_a_thousand_connections_are_all_served(environment):
    with server(environment) as running:
        body = mac_body(running.url)
        expected = Api.over_http(running.url).ok("/mac", json.loads(body))
        until(lambda: do_all_accept(running))  # one worker alone has no place for all
        workers = workers_of(running.process.pid)
        before = [resident_kib(worker) for worker in workers]
        answers = asyncio.run(crowd(running.url, head("/mac", body) + body))
        statuses = Counter(status for status, _ in answers)
        assert statuses.keys() <= {200, 503}
        assert sum(statuses.values()) == CONNECTIONS * ROUNDS
        assert statuses[200] > statuses[503]
        for status, content in answers:
            assert content == expected if status == 200 else content["error"] == "unavailable"
        grown = [resident_kib(worker) for worker in workers]
        assert max(after - start for after, start in zip(grown, before, strict=True)) < 100 * 1024


FEW_FILES = """
import resource, runpy
from app.operator.serving import CONFIGURATION
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
globals().update(runpy.run_path(str(CONFIGURATION)))
"""


def test_as_many_connections_as_files_may_be_open_leave_some_for_the_token(environment, tmp_path):
    (configuration := tmp_path / "gunicorn.conf.py").write_text(FEW_FILES)
    with server(environment, workers=1, configuration=str(configuration)) as running:
        body, kind = mac_body(running.url), json.dumps({"kty": "oct", "alg": "HS256"}).encode()
        expected = Api.over_http(running.url).ok("/mac", json.loads(body))

        def asking() -> socket.socket:
            client = connected(running.url)
            client.sendall(head("/mac", body) + body)  # at once: who is silent makes room
            return client

        with crowd_of(256, asking) as clients:
            assert all(answer_of(client) == (200, expected) for client in clients)
            clients[0].sendall(head("/keys", kind) + kind)
            assert answer_of(clients[0])[0] == 200


async def crowd(url: str, request: bytes) -> list[tuple[int, dict[str, str]]]:
    """Open all connections, then send on each, again and again; return every status and body."""
    address = urlsplit(url)
    clients = [Caller(address.hostname or "", address.port or 0) for _ in range(CONNECTIONS)]
    for client in clients:
        await client.connect()
    answers = []
    for _ in range(ROUNDS):
        asked = (client.ask(request) for client in clients)
        answers += await asyncio.wait_for(asyncio.gather(*asked), LONGEST_ANSWER.seconds)
    for client in clients:
        client.hang_up()
    return answers


class Caller:
    """One connection, opened again where the server has said that it closes it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._address)

    async def ask(self, request: bytes) -> tuple[int, dict[str, str]]:
        if self._writer.is_closing():
            await self.connect()
        self._writer.write(request)
        top = (await self._reader.readuntil(b"\r\n\r\n")).decode("ascii")
        status, *lines = top.splitlines()
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await self._reader.readexactly(int(headers["content-length"]))
        if headers["connection"] == "close":
            self.hang_up()
        return int(status.split()[1]), json.loads(body)

    def hang_up(self) -> None:
        self._writer.close()
