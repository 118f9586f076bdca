"""``jose-hsm --url`` says in one line what went wrong, and keeps what is secret to itself."""

import json
import os
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography import x509

from app.client.token_file import read_token
from app.config import Config
from scripts.throwaway import reserved_address
from tests.shared.authority import Authority
from tests.shared.callers import token_for
from tests.shared.command import jose_hsm
from tests.shared.command_line import CommandLine, Typed

REQUEST = r"\(request [A-Za-z0-9._~+/=-]+\)"
LOOPBACK = x509.IPAddress(ip_address("127.0.0.1"))
URL, TOKEN_FILE = "JOSE_HSM_URL", "JOSE_HSM_API_TOKEN_FILE"


@pytest.fixture
def line(server):
    return CommandLine({URL: server})


def said(typed: Typed, status: int) -> str:
    """The one line that a command says, which has failed with this status."""
    assert (typed.status, typed.out) == (status, b""), typed
    assert typed.err.startswith("jose-hsm: ")
    assert typed.err.count("\n") == 1
    return typed.err.removeprefix("jose-hsm: ").removesuffix("\n")


# --- What the service refuses ---


def test_a_refusal_is_the_code_the_text_and_the_name_of_the_request(line):
    text = said(line.type("keys", "show", "nobody"), 3)
    assert re.fullmatch(f"not_found: Key not found {REQUEST}", text)


def test_what_the_service_finds_wrong_with_a_request_is_said_as_it_says_it(line):
    text = said(line.type("keys", "create", "--alg", "HS256", "--expires", "soon"), 3)
    assert text.startswith("bad_request: ")
    assert "'expires'" in text


@pytest.mark.parametrize("name", ["é", "\udcff", "a b", "?x=y", "a%2Fb", "#x"])
def test_a_name_may_hold_any_character_and_stays_a_name(line, name):
    assert said(line.type("keys", "show", name), 3).startswith("not_found: Key not found ")


@pytest.mark.parametrize("path", ["v1/crypto/keys", "/a b", "/é", "/a\nb", ""])
def test_a_path_that_cannot_be_asked_for_is_wrong_usage(line, path):
    typed = line.type("request", "GET", path)
    assert typed.status == 2
    assert "must begin with / and be in ASCII without blanks" in typed.err


# --- Who asks ---


@pytest.fixture
def token_file(callers, tmp_path):
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(token_for(callers.environment, "token:alice") + "\n")
    return path


def test_a_token_is_read_from_its_file_and_names_who_asks(callers, token_file):
    line = CommandLine({URL: callers.url, TOKEN_FILE: str(token_file)})
    made = line.json("keys", "create", "--alg", "HS256")
    assert line.json("keys", "show", made["kid"])["owner"] == "token:alice"
    as_options = CommandLine({URL: "", TOKEN_FILE: ""})
    typed = ("--url", callers.url, "--token-file", token_file, "keys", "show", made["kid"])
    assert as_options.json(*typed)["owner"] == "token:alice"
    callers.alice.delete(made["kid"])


def test_without_a_token_nobody_is_let_in(callers):
    text = said(CommandLine({URL: callers.url}).type("keys", "list"), 3)
    assert text.startswith("unauthorized: Authentication required ")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_token_that_others_can_read_is_not_sent(callers, token_file, mode):
    token_file.chmod(mode)
    line = CommandLine({URL: callers.url, TOKEN_FILE: str(token_file)})
    assert said(line.type("keys", "list"), 2) == (
        f"others can read {token_file}: chmod 600 {token_file}"
    )


def test_a_token_may_come_from_a_pipe():
    reading, writing = os.pipe()
    os.write(writing, b"token\n")
    os.close(writing)
    assert read_token(Path(f"/dev/fd/{reading}")) == "token"
    os.close(reading)


@pytest.mark.parametrize("octets", [b"", b"\n", b"two words", b"a\nb", b"\xff", b"a\0b"])
def test_what_is_no_token_is_not_sent(server, tmp_path, octets):
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_bytes(octets)
    text = said(CommandLine({URL: server, TOKEN_FILE: str(path)}).type("keys", "list"), 2)
    assert text == f"{path} holds no API token"


def test_a_token_file_that_is_not_there_is_named(server, tmp_path):
    line = CommandLine({URL: server, TOKEN_FILE: str(tmp_path / "none")})
    assert said(line.type("jwks"), 2).startswith(f"{tmp_path / 'none'} cannot be read: ")


# --- Which service ---

REFUSED_URLS = {
    "": "which service? Say --url URL, or set JOSE_HSM_URL",
    "keys.example": "--url must be like https://keys.example",
    "ftp://keys.example": "--url must be like https://keys.example",
    "https://": "--url must be like https://keys.example",
    "https://keys..example": "--url must be like https://keys.example",
    f"https://{64 * 'k'}.example": "--url must be like https://keys.example",
    "https://keys.example:x": "--url must be like https://keys.example",
    "https://keys.example/ä": "--url must be like https://keys.example",
    "https://keys.example/a b": "--url must be like https://keys.example",
    "https://me:secret@keys.example": (
        "--url holds more than an address; an API token is in --token-file"
    ),
    "https://keys.example/?token=secret": (
        "--url holds more than an address; an API token is in --token-file"
    ),
    "http://keys.example": "http is for this machine only, as others can read it: use https",
}


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_what_is_no_safe_address_is_refused(url):
    assert said(CommandLine({URL: url}).type("sign", "key"), 2) == REFUSED_URLS[url]


def test_a_service_that_does_not_listen_may_do_so_later():
    with reserved_address() as address:
        text = said(CommandLine({URL: f"http://{address}"}).type("ready"), 4)
    assert text.startswith(f"no answer from {address}: ")


class Odd(BaseHTTPRequestHandler):
    """Answers with what the path has been told, whoever asks."""

    answers: ClassVar[dict[str, tuple[int, dict[str, str], bytes]]] = {
        "/elsewhere": (302, {"Location": "https://elsewhere.example/"}, b""),
        "/proxy": (502, {}, b"<html>Bad Gateway</html>"),
        "/busy": (
            503,
            {"Retry-After": "5", "X-Request-Id": "r-1"},
            b'{"error":"unavailable","description":"Service unavailable"}',
        ),
        "/loud": (400, {}, b'{"error":"bad","description":"\\u001b[2J\\nno"}'),
        "/broken": (200, {"Content-Type": "application/json"}, b"{"),
        "/deep": (502, {}, b"[" * 100_000),
        "/short": (200, {"Content-Type": "text/plain", "Content-Length": "9"}, b"x"),
        "/ok": (200, {"Content-Type": "application/json"}, b'{"state":"ready"}'),
        "/page": (200, {"Content-Type": "text/html"}, b"<html>Welcome</html>"),
        "/empty": (200, {}, b""),
        "/array": (200, {"Content-Type": "application/json"}, b"[]"),
        "/other": (200, {"Content-Type": "application/json"}, b'{"status":"fine"}'),
        "/endless": (200, {"Content-Type": "application/json"}, b'{"keys":[],"after":"a"}'),
        "/number": (200, {"Content-Type": "application/json"}, b'{"keys":[],"after":1}'),
        "/scalar": (200, {"Content-Type": "application/json"}, b'{"keys":5,"after":null}'),
        "/texts": (200, {"Content-Type": "application/json"}, b'{"keys":["a"],"after":null}'),
    }

    def do_GET(self) -> None:  # its name is http.server's
        """Answer."""
        prefix = self.path.removesuffix("/health/ready").partition("/v1/")[0]
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, headers, content = self.answers[prefix]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        """Answer the same."""
        self.do_GET()

    def do_DELETE(self) -> None:
        """Answer the same."""
        self.do_GET()

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def odd_server(context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve what is odd; give its URL."""
    with HTTPServer(("127.0.0.1", 0), Odd) as served:
        scheme = "http"
        if context:
            served.socket = context.wrap_socket(served.socket, server_side=True)
            scheme = "https"
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"{scheme}://127.0.0.1:{served.server_port}"
        finally:
            served.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def odd() -> Iterator[str]:
    with odd_server() as url:
        yield url


ODD = {
    "/elsewhere": (
        3,
        "302 leads to https://elsewhere.example/, where no token is sent",
    ),
    "/proxy": (4, "502 is no answer of a jose-hsm"),
    "/busy": (4, "unavailable: Service unavailable (again in 5 s, request r-1)"),
    "/loud": (3, "bad: ?[2J?no"),
    "/broken": (4, "502 is no answer of a jose-hsm"),
    "/deep": (4, "502 is no answer of a jose-hsm"),
}


@pytest.mark.parametrize("path", ODD)
def test_what_others_answer_is_said_in_one_line(odd, path):
    status, text = ODD[path]
    assert said(CommandLine({URL: odd + path}).type("ready"), status) == text


COMMANDS = (
    "verify FILE",
    "mac key FILE --alg HS256 --check x",
    "decrypt FILE",
    "keys list",
    "keys create --alg ES256",
    "keys public key",
    "keys destroy key --yes",
)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        *(("/page", words) for words in COMMANDS),
        *(("/other", words) for words in COMMANDS),
        ("/array", "verify FILE"),
        ("/empty", "verify FILE"),
        *((path, "keys list") for path in ("/endless", "/number", "/scalar", "/texts")),
    ],
)
def test_what_no_service_of_ours_answers_is_neither_valid_nor_done(odd, path, words, tmp_path):
    (tmp_path / "file").write_text("a.b.c")
    typed = words.replace("FILE", str(tmp_path / "file")).split()
    text = said(CommandLine({URL: odd + path}).type(*typed), 4)
    assert text == "502 is no answer of a jose-hsm"


@pytest.mark.parametrize("text", ["{", "[]", '{"requests":' + "[" * 100_000])
def test_a_file_without_a_json_object_is_not_sent(odd, text):
    typed = CommandLine({URL: f"{odd}/ok"}).type("batch", piped=text.encode())
    assert said(typed, 2) == "<stdin> holds no JSON object"


def test_a_file_that_cannot_be_made_is_no_bad_signature(odd):
    line = CommandLine({URL: f"{odd}/ok"})
    typed = line.type("request", "GET", "/v1/crypto/keys", "--out", "/nowhere/file")
    assert (typed.status, typed.out) == (2, b"")
    assert typed.err.endswith("'/nowhere/file': No such file or directory\n")


def test_half_an_answer_is_none(odd):
    text = said(CommandLine({URL: f"{odd}/short"}).type("ready"), 4)
    assert text.startswith("no answer from 127.0.0.1:")


def test_a_proxy_that_the_environment_names_is_not_asked(odd):
    line = CommandLine({URL: f"{odd}/ok", "http_proxy": "http://127.0.0.1:9"})
    assert line.json("ready") == {"state": "ready"}


def test_a_service_is_believed_by_its_certificate_alone(tmp_path):
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("server", common_name="server", names=[LOOPBACK])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with odd_server(context) as url:
        strange = CommandLine({URL: f"{url}/ok"}).type("ready")
        assert "certificate verify failed" in said(strange, 4)
        trusting = CommandLine({URL: f"{url}/ok", "SSL_CERT_FILE": str(authority.path)})
        assert trusting.json("ready") == {"state": "ready"}


# --- Which of the two ---


def test_a_command_beside_the_service_takes_no_url(server):
    typed = CommandLine({}).type("--url", server, "backup", "file")
    assert typed.status == 2
    assert "backup works beside the service: leave --url out" in typed.err
    typed = CommandLine({}).type("--url", server, "--settings", "file", "keys", "list")
    assert "--url is for a service, --settings beside one: not both" in typed.err


def test_what_is_typed_counts_more_than_the_environment(server, environment, live, tmp_path):
    kid = live.shared(kty="oct", alg="HS256")["kid"]
    settings = tmp_path / "settings"
    settings.write_text("".join(f'{name}="{text}"\n' for name, text in environment.items()))
    shown = ("keys", "show", kid, "--json")
    beside = jose_hsm({URL: server}, "--settings", str(settings), *shown)
    assert "grants" in json.loads(beside.stdout)  # which is told with a key beside the service only
    at_service = jose_hsm({URL: server}, *shown)
    assert json.loads(at_service.stdout)["kid"] == kid
    assert "grants" not in json.loads(at_service.stdout)


def test_the_service_passes_over_what_its_clients_read(environment):
    client = {URL: "https://keys.example", TOKEN_FILE: "token"}
    assert Config.from_env({**environment, **client}) == Config.from_env(environment)
