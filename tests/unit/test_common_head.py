"""What is read here is a part of what gunicorn reads, and of that the same."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.errors import ConfigurationProblem, NoMoreData, ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from app.errors import BadRequest
from app.server.environ import Environ
from app.server.framing import common_head
from app.server.intake import Intake, Progress, _Request

CLIENT = ("127.0.0.1", 1)
SEED = 19
MUTATED = 6_000
COMMON = (
    b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /v1/crypto/mac HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\n",
    b"DELETE /v1/crypto/keys/0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11 HTTP/1.1\r\nHost: a\r\n"
    b"Authorization: Bearer jh_A-_b\r\nX-Request-Id: a.b\r\nConnection: keep-alive\r\n\r\n",
    b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    b"PATCH /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
    b'POST / HTTP/1.1\r\nhOST: a\r\nACCEPT: a, b;q="0.1"\r\nCookie: a=b; c=d\r\n\r\n',
    b"POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: x (y) z/1\r\n\r\nrest",
)
ODD = (
    *(b"GET //a HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n"),
    *(b"GET /%41 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET http://b/a HTTP/1.1\r\nHost: a\r\n\r\n"),
    *(b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
    *(b"GET /a HTTP/1.0\r\nHost: a\r\n\r\n", b"GET /a HTTP/2.0\r\nHost: a\r\n\r\n"),
    *(b"GET /a  HTTP/1.1\r\nHost: a\r\n\r\n", b"GET\t/a HTTP/1.1\r\nHost: a\r\n\r\n"),
    *(b"GET /a HTTP/1.1\nHost: a\n\n", b"GET /a HTTP/1.1\r\nHost: a\nB: c\r\n\r\n"),
    *(b"GET /a HTTP/1.1\r\nHost: a\r\n\n", b"GET /a HTTP/1.1\r\nHost: a\r\r\n\r\n"),
    *(b"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /a HTTP/1.1\r\n\r\n"),
    *(b"GET /a HTTP/1.1\r\nHost : a\r\n\r\n", b"GET /a HTTP/1.1\r\n Host: a\r\n\r\n"),
    *(b"GET /a HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", b"GET /a HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n"),
    *(b"GET /a HTTP/1.1\r\nHost:a\r\n\r\n", b"GET /a HTTP/1.1\r\nHost:  a \r\n\r\n"),
    *(b"GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET /a HTTP/1.1\r\nHost:\r\n\r\n"),
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\na",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent_Length: 1\r\n\r\na",
    b"POST /a HTTP/1.1\r\nHost: a\r\nScript_Name: /a\r\n\r\na",
    b"POST /a HTTP/1.1\r\nHost: \xe4\r\n\r\n",
    b"POST /\xe4 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nA: \x7f\r\n\r\n",
    b"POST /a HTTP/1.1\r\n" + b"A: b\r\n" * 60 + b"\r\n",
    b"POST /a HTTP/1.1\r\nA: " + b"a" * 9000 + b"\r\n\r\n",
    b"POST /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
)
# Gunicorn judges these by their fields, however they were read.
ODD_FIELDS = (
    b"POST /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\na",
    b"POST /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n\r\na",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
    b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\na",
    b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\na",
    b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\na",
)
PIECES = (
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b": ", b"\x00", b"\xff", b"\x0b", b"_", b"%", b"?"),
    *(b"/", b"//", b"#", b",", b";", b"0", b"chunked", b"Content-Length: 5\r\n", b"Host: b\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Expect: x\r\n", b"X-Forwarded-Proto: https\r\n"),
    *(b"Connection: close\r\n", b" HTTP/1.1", b"GET ", b"\x85", b"\xc2\xa0"),
)


class Theirs(Request):  # type: ignore[misc]  # gunicorn has no types
    """A request of which gunicorn parses everything."""

    _policy_expect_continue = False


@pytest.fixture(scope="module")
def cfg() -> Config:
    cfg = Config()
    cfg.set("http_parser", "python")
    cfg.set("limit_request_line", 8190)
    return cfg


def made(kind: type[Request], cfg: Config, data: bytes, client: Any = CLIENT) -> Any:
    """Return all that is known of a request, and what comes after it; or how it is refused."""
    unreader = IterUnreader([data])
    try:
        request = kind(cfg, unreader, client, 1)
    except (ParseException, NoMoreData, StopIteration) as error:
        return type(error)
    reader = request.body.reader
    known = {
        name: value
        for name, value in vars(request).items()
        if name not in {"body", "unreader", "cfg", "is_common", "_head"}
    }
    rest = unreader.take_buffered()
    return known, type(reader), getattr(reader, "length", None), request.should_close(), rest


def mutated(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(data) + 1)
        end = min(len(data), place + chance.choice((0, 0, 1, 2, 9)))
        data = data[:place] + chance.choice((b"", *PIECES)) + data[end:]
    return data


def corpus() -> Iterator[bytes]:
    chance = random.Random(SEED)
    yield from (*COMMON, *ODD, *ODD_FIELDS)
    for data in COMMON:
        yield from (data[:end] for end in range(1, len(data)))
    for _ in range(MUTATED):
        yield mutated(chance.choice((*COMMON, *ODD_FIELDS, *ODD[:-3])), chance)


@pytest.mark.parametrize("client", [CLIENT, ""], ids=["address", "Unix socket"])
def test_each_request_is_what_gunicorn_makes_of_it(cfg, client):
    for data in corpus():
        assert made(_Request, cfg, data, client) == made(Theirs, cfg, data, client), data


def is_read(data: bytes) -> bool:
    return common_head.read(data, most_bytes=8190, but=()) is not None


@pytest.mark.parametrize("data", COMMON)
def test_what_is_common_is_read_as_soon_as_it_is_whole(data):
    end = data.index(b"\r\n\r\n") + 4
    assert not any(is_read(data[:short]) for short in range(end))
    assert is_read(data[:end])


@pytest.mark.parametrize("data", ODD)
def test_what_is_odd_is_left_to_gunicorn(data):
    assert not is_read(data)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("limit_request_line", 20), ("limit_request_field_size", 20), ("limit_request_fields", 1)],
)
def test_the_limits_of_gunicorn_hold(cfg, setting, value):
    narrow = Config()
    narrow.set("http_parser", "python")
    narrow.set(setting, value)
    for data in COMMON:
        assert made(_Request, narrow, data) == made(Theirs, narrow, data)


def test_a_field_that_means_something_to_gunicorn_is_left_to_it():
    data = b"GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n"
    assert common_head.read(data, most_bytes=8190, but={"X-FORWARDED-PROTO": "https"}) is None


def taken(cfg: Config, data: bytes, last: Any) -> Any:
    """Return all that is known of the request that comes after ``last``, or how it is refused."""
    intake = Intake(cfg, CLIENT, 2, last)
    try:
        intake.add(data)
    except ParseException as error:
        return type(error)
    if intake.request is None:
        return intake.progress
    known = {name: value for name, value in vars(intake.request).items() if name not in READERS}
    if intake.progress is not Progress.WHOLE:
        return known, intake.progress
    try:
        body = intake.body().read()
    except BadRequest:
        return known, intake.progress
    return known, body, intake.rest(), intake.progress, intake.request.should_close()


READERS = {"body", "unreader", "cfg", "is_common", "_head"}


def first(cfg: Config, data: bytes) -> Any:
    return _Request(cfg, IterUnreader([data]), CLIENT, 1)


@pytest.mark.parametrize("before", [data for data in COMMON if b" close" not in data])
def test_a_request_is_the_same_whichever_came_before_it(cfg, before):
    last = first(cfg, before)
    last.trailers.append(("T", "1"))
    last.force_close()
    chance = random.Random(SEED)
    for data in (*COMMON, *ODD, *ODD_FIELDS, *(mutated(before, chance) for _ in range(1_000))):
        assert taken(cfg, data, last) == taken(cfg, data, None), data


def test_gunicorn_is_not_asked_again_for_a_request_like_the_last_one(cfg, monkeypatch):
    last = first(cfg, COMMON[1])
    monkeypatch.setattr("app.server.intake._Request.__init__", None)
    known, body, rest, progress, is_closed = taken(cfg, COMMON[1], last)
    assert (known["req_number"], known["path"], body) == (2, "/v1/crypto/mac", b"{}")
    assert (rest, progress, is_closed) == (b"GET / HTTP/1.1\r\n", Progress.WHOLE, False)


def test_what_a_proxy_says_of_one_request_is_no_example(cfg):
    behind = Config()
    behind.set("proxy_protocol", "auto")
    behind.set("http_parser", "python")
    last = first(behind, b"PROXY TCP4 192.0.2.1 192.0.2.2 3 4\r\n" + COMMON[0])
    assert taken(behind, COMMON[0], last) == taken(behind, COMMON[0], None)


PEERS: dict[str, tuple[Any, Any]] = {
    "address": (CLIENT, ("127.0.0.1", 2)),
    "IPv6": (("::1", 1, 0, 0), ("::1", 2, 0, 0)),
    "Unix socket": ("", "/run/jose-hsm.sock"),
}


def told(environ: Environ, cfg: Config, data: bytes, peers: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return what the application is told, and what gunicorn would tell; nothing of a refusal."""
    try:
        request = _Request(cfg, IterUnreader([data]), peers[0], 1)
        theirs = wsgi.create(request, "sock", *peers, cfg)
    except (ParseException, NoMoreData, StopIteration, ConfigurationProblem):
        return None, None
    ours = environ.of(request, "sock", *peers)
    assert vars(ours[0]) == vars(theirs[0])
    for one in (ours[1], theirs[1]):
        one.pop("wsgi.early_hints", None)
        one["wsgi.errors"] = type(one["wsgi.errors"])
    return ours[1], theirs[1]


@pytest.mark.parametrize("peers", PEERS.values(), ids=PEERS)
def test_the_application_is_told_of_each_request_what_gunicorn_tells(cfg, peers):
    environ = Environ()
    for data in corpus():
        ours, theirs = told(environ, cfg, data, peers)
        assert ours == theirs, data


def test_a_prefix_of_all_paths_is_left_to_gunicorn(cfg, monkeypatch):
    monkeypatch.setenv("SCRIPT_NAME", "/v1")
    environ = Environ()
    for path in (b"/v1/a", b"/v1/b"):
        ours, theirs = told(
            environ, cfg, b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path, PEERS["address"]
        )
        assert ours == theirs


def test_what_a_proxy_says_of_one_request_is_not_believed_of_the_next(cfg):
    proxied = b"PROXY TCP4 192.0.2.1 192.0.2.2 3 4\r\n"
    behind = Config()
    behind.set("proxy_protocol", "auto")
    behind.set("http_parser", "python")
    environ, peers = Environ(), PEERS["address"]
    ours, theirs = told(environ, behind, proxied + COMMON[0], peers)
    assert ours == theirs
    assert ours["REMOTE_ADDR"] == "192.0.2.1"
    ours, theirs = told(environ, cfg, COMMON[0], peers)
    assert ours == theirs
