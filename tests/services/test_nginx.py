"""nginx in front: the same answers, its own in the same form, and nothing that a client made up."""

import base64
import datetime
import gzip
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.rights import Role
from scripts.throwaway import ROOT, reserved_address
from scripts.workers import is_gone, workers_of
from tests.http.test_http import (
    JSON,
    LIMIT,
    POSTS,
    address,
    chunked,
    head_of,
    padded,
    refusal_of,
)
from tests.shared.api import PREFIX
from tests.shared.callers import WITH_TOKENS, token_for
from tests.shared.forks import server
from tests.shared.waiting import ANSWER, until

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
PARTS = ROOT / "deploy" / "nginx"

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def certificate(directory: Path) -> None:
    """Write a certificate of localhost and its key, as the configuration names them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (directory / "fullchain.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (directory / "privkey.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def configure(
    directory: Path, backend: str, place: str, changes: Mapping[str, str], files: Mapping[str, str]
) -> Path:
    """Write the configuration as deployed, with other places; return that of nginx around it."""
    for part in PARTS.iterdir():
        shutil.copy(part, directory)
    certificate(directory)
    for name, content in files.items():
        (directory / name).write_text(content)
    text = (directory / "jose-hsm.conf").read_text()
    places = {
        "unix:/run/jose-hsm/http.sock": backend,
        "listen 443 ssl": f"listen {place} ssl",
        "/etc/ssl/jose-hsm": str(directory),
    }
    for old, new in (places | dict(changes)).items():
        assert old in text, old
        text = text.replace(old, new)
    (directory / "jose-hsm.conf").write_text(text)
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = directory / "nginx.conf"
    main.write_text(
        f"daemon off; master_process off; pid {directory}/pid; error_log stderr warn;\n"
        "events {}\n"
        f"http {{ access_log {directory}/access.log;\n{temporary}include jose-hsm.conf; }}\n"
    )
    return main


@contextmanager
def nginx(
    directory: Path,
    backend: str,
    changes: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run nginx before ``backend`` for one ``with`` block; give its port.

    ``changes`` are made in ``jose-hsm.conf``, ``files`` are beside it.
    """
    directory.mkdir()
    with reserved_address() as place:
        command = [str(NGINX), "-p", str(directory), "-e", "stderr"]
        command += ["-c", str(configure(directory, backend, place, changes or {}, files or {}))]
        test = subprocess.run([*command, "-t"], check=False, capture_output=True, text=True)
        assert test.returncode == 0, test.stderr
        assert "warn" not in test.stderr
        port = int(place.rpartition(":")[2])
        with (
            (directory / "errors").open("wb") as errors,
            subprocess.Popen(command, stderr=errors) as process,
        ):
            try:
                until(lambda: listens(port))
                yield port
            finally:
                process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Reply(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] = JSON,
    **options: Any,
) -> Reply:
    connection.request(method, path, body=body, headers=dict(headers), **options)
    response = connection.getresponse()
    return Reply(response.status, response.headers, response.read())


def through(port: int) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection(
        "127.0.0.1", port, timeout=ANSWER.seconds, context=trusting()
    )


def send(port: int, data: bytes) -> tuple[int, str]:
    """Send bytes over TLS; return status and code of the JSON answer."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=ANSWER.seconds)
    with closing(trusting().wrap_socket(plain, server_hostname="localhost")) as channel:
        channel.sendall(data)
        with closing(http.client.HTTPResponse(channel)) as response:
            response.begin()
            return refusal_of(response)


def json_of(reply: Reply) -> tuple[int, str]:
    assert reply.headers["Content-Type"] == "application/json", reply
    members = json.loads(reply.body)
    assert set(members) == {"error", "description"}
    return reply.status, members["error"]


@pytest.fixture(scope="module")
def front(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of nginx before the live service, over TCP."""
    host, port = address(server)
    with nginx(tmp_path_factory.mktemp("nginx") / "run", f"{host}:{port}") as listening:
        yield listening


# --- The same answers ---


def requests_of(live: Any) -> Iterator[tuple[str, str, Any, Mapping[str, str]]]:
    kid = live.create(kty="oct", alg="HS256")["kid"]
    mac = json.dumps({"kid": kid, "alg": "HS256", "data": "AAAA"}).encode()
    for path in POSTS:
        yield "POST", PREFIX + path, b"{}", JSON
        yield "POST", PREFIX + path, b"{", JSON
        yield "POST", PREFIX + path, b"{}", {"Content-Type": "text/plain"}
        yield "POST", PREFIX + path, b"{}", {**JSON, "Content-Encoding": "gzip"}
        yield "PUT", PREFIX + path, b"{}", JSON
    yield "POST", f"{PREFIX}/mac", mac, JSON
    yield "POST", f"{PREFIX}/mac", padded(json.loads(mac), LIMIT), JSON
    yield "POST", f"{PREFIX}/mac", padded(json.loads(mac), LIMIT + 1), JSON
    yield "POST", f"{PREFIX}/mac", padded(json.loads(mac), LIMIT + 100_000), JSON
    for path in (
        "/",
        "/v1//crypto/sign",
        "/v1/crypto/sign%2F",
        "//v1/crypto/sign",
        "/%FF",
        "/a%00b",
    ):
        yield "POST", path, b"{}", JSON
    for odd in ("..%2F..%2Fencrypt", "%2F", "%0A", "%zz", "a;b", "k" * 3000):
        yield "DELETE", f"{PREFIX}/keys/{odd}", None, {}


def test_answers_are_those_of_the_service_byte_for_byte(front, server, live):
    direct = http.client.HTTPConnection(*address(server), timeout=ANSWER.seconds)
    with closing(direct), closing(through(front)) as proxied:
        for request in requests_of(live):
            expected, found = ask(direct, *request), ask(proxied, *request)
            fields = ("Content-Type", "Allow", "Retry-After")
            if "%zz" in request[1] or "%00" in request[1]:  # no URL, says nginx
                assert json_of(found) == (400, "bad_request")
                continue
            assert (found.status, found.body) == (expected.status, expected.body), request[:2]
            assert [found.headers[name] for name in fields] == [
                expected.headers[name] for name in fields
            ]


def test_a_chunked_body_arrives_whole(front, live):
    body = json.dumps({"kid": live.create(kty="oct", alg="HS256")["kid"], "alg": "HS256"})
    data = padded(json.loads(body) | {"data": ""}, LIMIT)
    with closing(through(front)) as connection:
        pieces = iter([data[:1000], data[1000:]])
        reply = ask(connection, "POST", f"{PREFIX}/mac", pieces, encode_chunked=True)
    assert reply.status == 200


# --- nginx's own answers ---

REFUSED: Mapping[str, tuple[bytes, int, str]] = {
    "nonsense": (b"NONSENSE\r\n\r\n", 400, "bad_request"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request"),
    "NUL in the path": (b"GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"),
    "encoded path outside": (b"GET /../a HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"),
    "both framings": (
        head_of("/mac", Content_Length="2", Transfer_Encoding="chunked"),
        400,
        "bad_request",
    ),
    "two lengths": (
        head_of("/mac", Content_Length="2")[:-2] + b"Content-Length: 3\r\n\r\n{}",
        400,
        "bad_request",
    ),
    "broken chunk": (
        head_of("/mac", Transfer_Encoding="chunked") + b"zz\r\n{}\r\n",
        400,
        "bad_request",
    ),
    "method": (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method_not_allowed"),
    "large body": (head_of("/mac", Content_Length="9999999"), 413, "payload_too_large"),
    "large chunked body": (
        head_of("/mac", Transfer_Encoding="chunked") + chunked(b" " * (LIMIT + 100_000)),
        413,
        "payload_too_large",
    ),
    "long URL": (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 9000), 414, "bad_request"),
    "large header": (head_of("/mac", X="a" * 9000), 431, "bad_request"),
    "transfer coding": (head_of("/mac", Transfer_Encoding="xchunked"), 501, "bad_request"),
    "HTTP/3.0": (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 501, "bad_request"),
}


@pytest.mark.parametrize(("data", "status", "code"), REFUSED.values(), ids=REFUSED)
def test_what_nginx_refuses_is_answered_in_json(front, data, status, code):
    assert send(front, data) == (status, code)


def test_plain_http_is_refused_in_json(front):
    with closing(
        http.client.HTTPConnection("127.0.0.1", front, timeout=ANSWER.seconds)
    ) as connection:
        assert json_of(ask(connection, "GET", "/")) == (400, "bad_request")


def test_without_a_service_the_answer_is_503_with_retry_after(tmp_path):
    with reserved_address() as nobody, nginx(tmp_path / "run", nobody) as port:
        for path in ("/mac", "/keys"):
            with closing(through(port)) as connection:
                reply = ask(connection, "POST", PREFIX + path, b"{}")
                assert json_of(reply) == (503, "unavailable")
                assert int(reply.headers["Retry-After"]) > 0


@pytest.mark.parametrize("path", ["/metrics", "/health/ready", "/status", "/admin"])
def test_what_is_for_operators_is_refused_to_others(server, tmp_path, path):
    host, port = address(server)
    others = {"allow 127.0.0.1;": ""}
    with nginx(tmp_path / "run", f"{host}:{port}", others) as listening:
        for spelling in (path, path.replace("a", "%61", 1), f"/x/..{path}", f"{path}?x"):
            with closing(through(listening)) as connection:
                assert json_of(ask(connection, "GET", spelling)) == (403, "forbidden")


def test_the_admin_page_is_refused_to_others_whatever_is_below_it_and_nothing_beside_it(
    server, tmp_path
):
    host, port = address(server)
    others = {"allow 127.0.0.1;": ""}
    with (
        nginx(tmp_path / "run", f"{host}:{port}", others) as listening,
        closing(through(listening)) as connection,
    ):
        for below in ("/", "/sign-in", "%2Fkeys", "/keys/a%0Ab", "/keys/%0A", "%0A", "/%0D%0A/x"):
            assert json_of(ask(connection, "GET", f"/admin{below}")) == (403, "forbidden"), below
        for beside in ("/administrator", "/admin.html", "/admin%20", "/Admin"):
            assert json_of(ask(connection, "GET", beside)) == (404, "not_found"), beside


def test_operators_see_the_status(front):
    with closing(through(front)) as connection:
        reply = ask(connection, "GET", "/status", headers={})
    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/docs",
        "/docs/docs.js",
        "/docs/swagger-ui/swagger-ui.css",
        "/openapi.json",
        "/openapi-strict.json",
    ],
)
def test_the_api_page_is_for_everybody_and_is_compressed(front, path):
    with closing(through(front)) as connection:
        plain = ask(connection, "GET", path, headers={})
        short = ask(connection, "GET", path, headers={"Accept-Encoding": "gzip"})
        assert (plain.status, short.status) == (200, 200)
        assert gzip.decompress(short.body) == plain.body
        assert len(short.body) < len(plain.body)
        for reply in (plain, short):
            known = {"If-None-Match": reply.headers["ETag"], "Accept-Encoding": "gzip"}
            assert ask(connection, "GET", path, headers=known).status == 304


def test_a_password_reaches_the_status_page_and_a_cookie_the_admin_page(environment, tmp_path):
    """And the challenge, and the cookie, reach the browser."""
    bind = f"unix:{tmp_path}/http.sock"
    auditor = token_for(environment, "token:auditor", roles=[Role.AUDITOR])
    password = base64.b64encode(f"me:{auditor}".encode()).decode()
    with (
        server(environment | WITH_TOKENS, workers=1, bind=bind),
        nginx(tmp_path / "run", bind) as port,
        closing(through(port)) as connection,
    ):
        refused = ask(connection, "GET", "/status", headers={})
        assert json_of(refused) == (401, "unauthorized")
        assert "Basic" in str(refused.headers.get_all("WWW-Authenticate"))
        known = {"Authorization": f"Basic {password}"}
        assert ask(connection, "GET", "/status", headers=known).status == 200
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        own = form | {"Sec-Fetch-Site": "same-origin", "Origin": "https://localhost"}
        signed_in = ask(connection, "POST", "/admin/sign-in", f"token={auditor}", own)
        assert signed_in.status == 303
        cookie = str(signed_in.headers["Set-Cookie"])
        assert "; Secure; HttpOnly; SameSite=Strict" in cookie
        for path in ("/admin", "/admin/audit"):
            known = {"Cookie": cookie.partition(";")[0]}
            assert ask(connection, "GET", path, headers=known).status == 200
        foreign = form | {"Sec-Fetch-Site": "cross-site", "Origin": "https://localhost"}
        assert ask(connection, "POST", "/admin/sign-out", "", foreign).status == 403


@pytest.mark.parametrize(
    "change",
    [
        {"jose_hsm_at_once 100": "jose_hsm_at_once 3", "body_timeout 10s": "body_timeout 1h"},
        {"rate=2000r/s": "rate=1r/m", "burst=2000": "burst=3"},
    ],
    ids=["at once", "rate"],
)
def test_who_asks_too_much_from_one_address_is_told_so(server, tmp_path, change):
    """Slow bodies count as requests; so the memory that they hold is bounded."""
    host, port = address(server)
    with nginx(tmp_path / "run", f"{host}:{port}", change) as listening, ExitStack() as open_now:
        for _ in range(3):
            plain = socket.create_connection(("127.0.0.1", listening), timeout=ANSWER.seconds)
            slow = trusting().wrap_socket(plain, server_hostname="localhost")
            open_now.enter_context(slow).sendall(head_of("/mac", Content_Length="9") + b"{")
        connection = open_now.enter_context(closing(through(listening)))

        def is_refused() -> bool:
            reply = ask(connection, "GET", "/health/live")
            if reply.status == 200:
                return False
            assert json_of(reply) == (429, "too_many_requests")
            return int(reply.headers["Retry-After"]) > 0

        until(is_refused)


# --- What reaches the service ---

SPOOFED = {
    "X-Proxy-Secret": "guessed",
    "X-Client-Verify": "SUCCESS",
    "X-Client-Cert": "forged",
    "X-Forwarded-For": "10.9.8.7",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-User": "root",
    "X_Client_Verify": "SUCCESS",
    "Forwarded": "for=10.9.8.7",
    "X-Real-IP": "10.9.8.7",
    "X-Script-Name": "/evil",
    "Cookie": "a=b",
    "Origin": "https://localhost",
    "Connection": "X-Request-Id",
}
KNOWN = {
    "Authorization": "Bearer token",
    "Accept": "application/json",
    "Idempotency-Key": "mine-1",
    "If-None-Match": '"etag"',
    "Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "User-Agent": "client/1",
    "Sec-Fetch-Site": "cross-site",
}


@pytest.fixture(scope="module")
def telling(
    environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The port of nginx before a service that tells what it sees, over a Unix socket."""
    directory = tmp_path_factory.mktemp("n")
    path = f"unix:{directory}/http.sock"
    application = "tests.faults.crashing:tells"
    with (
        server(environment, application=application, bind=path),
        nginx(directory / "run", path) as port,
    ):
        yield port


def told(port: int, path: str, headers: Mapping[str, str], body: Any = b"{}") -> Any:
    with closing(through(port)) as connection:
        reply = ask(connection, "POST", path, body, {**JSON, **headers})
    assert reply.status == 200, reply
    return json.loads(reply.body)


@pytest.mark.parametrize("path", ["/v1/crypto/keys", "/v1/crypto/mac", "/metrics", "/any"])
def test_nothing_gets_through_that_a_client_made_up(telling, path):
    seen = told(telling, path, {**SPOOFED, **KNOWN, "X-Request-Id": "mine-1"})["headers"]
    assert seen.pop("HTTP_HOST") == "127.0.0.1"
    assert seen == {
        "HTTP_X_REQUEST_ID": "mine-1",
        "HTTP_X_FORWARDED_FOR": "127.0.0.1",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_REAL_IP": "127.0.0.1",
        "HTTP_X_CLIENT_VERIFY": "NONE",
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in KNOWN.items()},
    }


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a;b", 'a"b', "ä"])
def test_a_strange_request_id_is_replaced(telling, given):
    seen = told(telling, "/any", {"X-Request-Id": given.encode()})["headers"]
    assert re.fullmatch("[0-9a-f]{32}", seen["HTTP_X_REQUEST_ID"])


@pytest.mark.parametrize("given", ["x" * 128, "aZ09._~+/=-"])
def test_a_request_id_that_the_service_takes_gets_through(telling, given):
    assert told(telling, "/any", {"X-Request-Id": given})["headers"]["HTTP_X_REQUEST_ID"] == given


def test_every_location_that_passes_requests_on_includes_the_headers():
    text = (PARTS / "jose-hsm.conf").read_text()
    blocks = re.findall(r"location [^{]*\{([^}]*)\}", text)
    passing = [block for block in blocks if "proxy_pass" in block]
    assert len(passing) == text.count("proxy_pass http") == 5
    for block in passing:
        assert "include jose-hsm-headers.conf;" in block
        assert "proxy_set_header" not in block


def test_a_body_that_comes_slowly_reaches_the_service_at_once(telling):
    def slowly() -> Iterator[bytes]:
        for _ in range(10):
            yield b" " * 1000
            time.sleep(0.1)

    seen = told(telling, "/any", {}, slowly())
    assert (seen["body_bytes"], seen["framing"]) == (10_000, "10000")


def test_no_body_ever_goes_to_a_file(server, live, tmp_path):
    kid = live.create(kty="oct", alg="A256GCM")["kid"]
    body = {"kid": kid, "alg": "dir", "enc": "A256GCM", "data": "A" * 3 * 2**19}
    host, port = address(server)
    with nginx(tmp_path / "run", f"{host}:{port}") as listening, closing(through(listening)) as it:
        for data in (json.dumps(body).encode(), iter([json.dumps(body).encode()])):
            reply = ask(it, "POST", f"{PREFIX}/encrypt", data, encode_chunked=True)
            assert reply.status == 200
    assert "temporary file" not in (tmp_path / "run" / "errors").read_text()


# --- Once, or again ---


@contextmanager
def failing_once(act: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[bytes]]]:
    """A service that does ``act`` on its first request and answers the others; notes them all."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    channel, _ = listener.accept()
                except OSError:
                    return
                with channel:
                    seen.append(whole(channel))
                    if len(seen) == 1:
                        act(channel)
                    else:
                        channel.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", seen
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def whole(channel: socket.socket) -> bytes:
    """Return a request with the body ``{}``: who leaves some of it unread cuts its answer off."""
    request = b""
    while not request.endswith(b"\r\n\r\n{}") and (part := channel.recv(65_536)):
        request += part
    return request


@pytest.mark.parametrize(
    ("method", "path", "times"),
    [
        *(("POST", f"{PREFIX}/{name}", 2) for name in ("sign", "verify", "mac", "encrypt")),
        ("POST", f"{PREFIX}/decrypt", 2),
        ("POST", f"{PREFIX}/rewrap", 2),
        ("POST", f"{PREFIX}/keys", 1),
        ("POST", f"{PREFIX}/keys/unwrap", 1),
        ("DELETE", f"{PREFIX}/keys/x", 1),
        ("POST", f"{PREFIX}/keys/x/tags", 1),
    ],
)
def test_only_what_changes_nothing_is_sent_again(tmp_path, method, path, times):
    def die(channel: socket.socket) -> None:
        channel.shutdown(socket.SHUT_RDWR)

    with failing_once(die) as (backend, seen), nginx(tmp_path / "run", backend) as port:
        with closing(through(port)) as connection:
            reply = ask(connection, method, path, b"{}")
        assert len(seen) == times
        if times == 2:
            assert (reply.status, reply.body) == (200, b"{}")
        else:
            assert json_of(reply) == (503, "unavailable")


def test_a_service_that_is_killed_is_503_and_comes_back(environment, tmp_path):
    path = f"unix:{tmp_path}/http.sock"
    with nginx(tmp_path / "run", path) as port:
        with server(environment, bind=path) as started:
            assert status(port) == 404
            workers = workers_of(started.process.pid)
            started.process.kill()
            started.process.wait()
            for worker in workers:  # each of them serves until it has noticed
                until(partial(is_gone, worker))
            assert status(port) == 503
        with closing(through(port)) as connection:
            reply = ask(connection, "POST", f"{PREFIX}/keys", b"{}")
            assert json_of(reply) == (503, "unavailable")
            assert "Retry-After" in reply.headers
        with server(environment, bind=path):
            assert status(port) == 404


def status(port: int) -> int:
    with closing(through(port)) as connection:
        return json_of(ask(connection, "GET", "/unknown"))[0]
