"""What comes of a request, in whatever pieces, is what gunicorn would read from a socket."""

import random
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate, cycle, pairwise, takewhile
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.parser import RequestParser

from app.config import MAX_BODY_BYTES
from app.http.request_body import BodyWanted
from app.server.intake import Intake, Progress

CLIENT = ("127.0.0.1", 1)
HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: b\r\n\r\n"

WHOLE = {
    "no body": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "empty line before": b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "length": HEAD + b"Content-Length: 5\r\n\r\nab\r\nc",
    "length 0": HEAD + b"Content-Length: 0\r\n\r\n",
    "chunks": CHUNKED + b"\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
    "no chunks": CHUNKED + b"\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"\r\n1\r\na\r\n0;x\r\nT: 1\r\nU: 2\r\n\r\n",
    "chunk of CRLF": CHUNKED + b"\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n",
}
REFUSED = {
    "nonsense": b"NONSENSE\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF in the header section": b"GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n",
    "two empty lines": b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "version": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "folding": b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "both framings": CHUNKED + b"Content-Length: 1\r\n\r\n0\r\n\r\n",
    "blank before colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "long line": b"GET /" + b"a" * 9000,
    "endless header section": b"GET / HTTP/1.1\r\n" + b"A: " + b"a" * 9000 + b"\r\n\r\n",
    "many fields": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n",
    "coding": HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
}
BROKEN = {
    "size": b"zz\r\n{}\r\n0\r\n\r\n",
    "negative size": b"-1\r\n{}\r\n0\r\n\r\n",
    "signed size": b"+2\r\n{}\r\n0\r\n\r\n",
    "prefixed size": b"0x2\r\n{}\r\n0\r\n\r\n",
    "underscore": b"0_2\r\n{}\r\n0\r\n\r\n",
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "terminator": b"2\r\n{}XX0\r\n\r\n",
    "bare LF": b"2\n{}\n0\n\n\r\n",
    "extension": b'2;"\r\n{}\r\n0\r\n\r\n',
    "long extension": b"2;" + b"a" * 9000,
    "trailer": b"0\r\nHost: b\r\n\r\n",
    "bare LF in a trailer": b"0\r\nA: b\nC: d\r\n\r\n",
}


@pytest.fixture(scope="module")
def cfg() -> Config:
    cfg = Config()
    cfg.set("http_parser", "python")
    cfg.set("limit_request_line", 8190)
    return cfg


def intake_of(cfg: Config, pieces: Iterator[bytes] | list[bytes]) -> tuple[Intake, bytes]:
    """Give the pieces until the request is decided; return also what was not given."""
    intake, rest = Intake(cfg, CLIENT, 1), list(pieces)
    while rest and intake.progress is Progress.UNDER_WAY:
        intake.add(rest.pop(0))
    return intake, b"".join(rest)


def shown(request: Any, body: bytes, rest: bytes) -> tuple[Any, ...]:
    line = request.method, request.uri, request.version
    return (*line, request.headers, request.trailers, body, rest)


def read_by_gunicorn(cfg: Config, data: bytes) -> tuple[Any, ...]:
    parser = RequestParser(cfg, iter([data]), CLIENT)
    request = next(parser)
    body = request.body.read()
    return shown(request, body, parser.unreader.take_buffered())


def read_here(cfg: Config, pieces: list[bytes]) -> tuple[Any, ...]:
    intake, rest = intake_of(cfg, pieces)
    assert intake.progress is Progress.WHOLE
    body = intake.body().read()
    return shown(intake.request, body, intake.rest() + rest)


def splits(data: bytes) -> Iterator[list[bytes]]:
    yield [data]
    yield [data[place : place + 1] for place in range(len(data))]
    for place in range(1, len(data)):
        yield [data[:place], data[place:]]


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("following", [b"", NEXT], ids=["alone", "with the next"])
def test_a_request_is_the_same_in_whatever_pieces_it_comes(cfg, data, following):
    expected = read_by_gunicorn(cfg, data + following)
    for pieces in splits(data + following):
        assert read_here(cfg, pieces) == expected


@pytest.mark.parametrize("following", [b"", NEXT], ids=["alone", "with the next"])
def test_pieces_large_and_small_are_put_together_in_order(cfg, following):
    size = 100_000
    body = random.Random(size).randbytes(size)
    data = HEAD + b"Content-Length: %d\r\n\r\n" % size + body + following
    expected = read_by_gunicorn(cfg, data)
    for lengths in ([9, 4095, 2, 4096], [70_000, 1, 1], [5_000, 3, 9_000], [1]):
        ends = accumulate(cycle(lengths), initial=0)
        places = [*takewhile(lambda end: end < len(data), ends), len(data)]
        assert read_here(cfg, [data[a:b] for a, b in pairwise(places)]) == expected


def test_small_pieces_of_a_body_take_no_more_memory_than_is_counted(cfg):
    intake, number = Intake(cfg, CLIENT, 1), 50_000
    intake.add(HEAD + b"Content-Length: %d\r\n\r\n" % MAX_BODY_BYTES)
    with traced() as used_bytes:
        for place in range(number):
            intake.add(b"%x" % (place % 200 + 16))
        assert intake.held_bytes == 2 * number
        assert used_bytes() < 2 * intake.held_bytes


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Give what tells how many bytes of memory have been taken in the ``with`` block."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_before_its_end_a_request_is_under_way(cfg, data):
    for end in range(len(data)):
        assert intake_of(cfg, [data[:end]])[0].progress is Progress.UNDER_WAY


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_gunicorn_refuses_is_refused_in_whatever_pieces_it_comes(cfg, data):
    with pytest.raises(ParseException) as expected:
        read_by_gunicorn(cfg, data)
    pieces = list(splits(data)) if len(data) < 500 else [[data], [data[:100], data[100:]]]
    for each in pieces:
        with pytest.raises(type(expected.value)):
            intake_of(cfg, each)


@pytest.mark.parametrize("chunks", BROKEN.values(), ids=BROKEN)
def test_a_chunked_body_that_cannot_be_right_is_waited_for_no_longer(cfg, chunks):
    with pytest.raises((ParseException, NoMoreData)):
        read_by_gunicorn(cfg, CHUNKED + b"\r\n" + chunks)
    intake, _ = intake_of(cfg, [CHUNKED + b"\r\n" + chunks])
    before = intake.progress
    assert before is Progress.WHOLE  # so gunicorn judges it
    with pytest.raises(Exception, match="broken off"):
        intake.body().read()
    assert intake.progress is Progress.BROKEN_OFF


def test_http_1_1_has_a_host(cfg):
    with pytest.raises(ParseException):
        intake_of(cfg, [b"GET / HTTP/1.1\r\n\r\n"])


def test_a_header_section_in_single_bytes_is_parsed_a_few_times_only(cfg, monkeypatch):
    parsed = []

    def parse(pieces: Iterable[bytes]) -> Iterator[bytes]:
        parsed.append(pieces)
        return iter(pieces)

    monkeypatch.setattr("app.server.intake.IterUnreader", parse)
    monkeypatch.setattr("app.server.intake._Request", _never)
    intake = Intake(cfg, CLIENT, 1)
    for _ in range(4096):
        intake.add(b"a")
    assert len(parsed) <= 14


def _never(*_: Any) -> None:
    raise NoMoreData


@pytest.mark.parametrize(
    "begin",
    [
        HEAD + b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1),
        CHUNKED + b"\r\n%x\r\n" % (MAX_BODY_BYTES + 1),
        CHUNKED + b"\r\n%x\r\n%b\r\n%x\r\n" % (9, b"x" * 9, MAX_BODY_BYTES),
        CHUNKED + b"\r\n" + b"1;%b\r\nx\r\n" % (b"a" * 8000) * (2 * MAX_BODY_BYTES // 8000 + 1),
    ],
    ids=["length", "chunk", "chunks together", "framing"],
)
def test_a_body_that_is_too_large_is_waited_for_no_longer(cfg, begin):
    intake, _ = intake_of(cfg, [begin])
    assert intake.progress is Progress.TOO_LARGE
    with pytest.raises(Exception, match="413"):
        intake.body().read()


@pytest.mark.parametrize("begin", [HEAD + b"Content-Length: 5\r\n", CHUNKED])
def test_who_expects_to_be_told_is_waited_for_twice(cfg, begin):
    intake, _ = intake_of(cfg, [begin + b"Expect: 100-continue\r\n\r\n"])
    before = intake.progress
    assert before is Progress.EXPECTING
    with pytest.raises(BodyWanted):
        intake.body().read()
    intake.go_on()
    told = intake.progress
    assert told is Progress.UNDER_WAY
    intake.add(b"5\r\nabcde\r\n0\r\n\r\n" if begin is CHUNKED else b"abcde")
    assert intake.progress is Progress.WHOLE
    assert intake.body().read() == b"abcde"


@pytest.mark.parametrize(
    "begin", [HEAD + b"Content-Length: 5\r\n\r\nabcde", CHUNKED + b"\r\n5\r\nabcde\r\n0\r\n\r\n"]
)
def test_a_body_takes_memory_when_it_is_read_too(cfg, begin):
    intake, _ = intake_of(cfg, [begin])
    assert intake.body().read() == b"abcde"
    assert intake.held_bytes == 5
