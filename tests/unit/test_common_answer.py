"""What is answered with common headers is what gunicorn would send, and all else is refused by it.

A name twice, blanks around a value, a value that is none: each is as gunicorn has it.
"""

from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi

from app.server.answering import Sink
from app.server.framing.common_answer import Response

TYPE = ("Content-Type", "application/json")
HEADERS = (
    *((), (TYPE,), (TYPE, ("Content-Length", "3")), (("Content-Length", "3"), TYPE)),
    *((("Content-Length", "3"), ("Content-Length", "2")), (("Content-Length", " 3 "),)),
    *((("Content-Length", "x"),), (("Content-Length", ""),), (("content-length", "2"),)),
    *((TYPE, ("Retry-After", "2"), ("X-Request-Id", "a~b")), (("Server-Timing", " a;dur=1 "),)),
    *((("ETag", "\tx\t"),), (("ETag", "ä"),), (("ETag", "a\r\nb: c"),), (("ETag", "\x7f"),)),
    *((("ETag", "a\r\nb: c"), ("ETag", "a")), (("Content-Length", "x"), ("Content-Length", "3"))),
    *((("ETag", "\u2028"),), (("ETag", "€"),), (("ETag", ""),), (("Set-Cookie", "a"), TYPE)),
    *((TYPE, ("Connection", "close")), (("Upgrade", "websocket"),), (("a b", "c"),)),
    *((("Transfer-Encoding", "chunked"),), (("ETag", 1),), ((1, "a"),), (TYPE, TYPE)),
    (("Content-Length", "1"), ("WWW-Authenticate", 'Bearer realm="a"'), ("Allow", "GET, HEAD")),
)
STATUSES = (
    *("200 OK", "422 UNPROCESSABLE ENTITY", "503 SERVICE UNAVAILABLE", "422 Unprocessable Content"),
    *("204 No Content", "204 NO CONTENT", "304 NOT MODIFIED", "100 CONTINUE", "x", 200),
)
REQUESTS = tuple(
    SimpleNamespace(
        method=method,
        version=version,
        should_close=lambda: False,
        headers=[],
        is_common=version == (1, 1) and method != "HEAD",
    )
    for method, version in product(("GET", "HEAD", "POST"), ((1, 1), (1, 0)))
)
CONFIG = Config()  # to make one takes much longer than to answer
BODIES = ((b"abc",), (b"ab", b"c"), (b"abcd",), (b"a",), (b"", b"abc"), ())


def sent(
    kind: type[wsgi.Response], request: Any, status: Any, headers: Any, body: Any = (b"abc",)
) -> Any:
    """Return what is sent, and whether the connection is closed; or how it is refused."""
    sink = Sink()
    response = kind(request, sink, CONFIG)
    try:
        response.start_response(status, list(headers))
        for part in body:
            response.write(part)
        response.close()
    except Exception as error:  # noqa: BLE001  # of whatever kind
        return type(error)
    return bytes(sink.content()), response.should_close(), response.headers


@pytest.mark.parametrize("headers", HEADERS, ids=repr)
def test_what_is_sent_is_what_gunicorn_sends(monkeypatch, headers):
    monkeypatch.setattr("gunicorn.util.http_date", lambda: "now")
    for request, status in product(REQUESTS, STATUSES):
        ours, theirs = (sent(kind, request, status, headers) for kind in (Response, wsgi.Response))
        assert ours == theirs, (request, status)


@pytest.mark.parametrize("body", BODIES)
def test_a_body_in_parts_or_of_another_length_is_sent_as_gunicorn_does(monkeypatch, body):
    monkeypatch.setattr("gunicorn.util.http_date", lambda: "now")
    for request, status in product(REQUESTS, STATUSES):
        answer = (request, status, (TYPE, ("Content-Length", "3")), body)
        assert sent(Response, *answer) == sent(wsgi.Response, *answer), (request, status)


@pytest.mark.parametrize("kind", [Response, wsgi.Response])
def test_an_answer_is_begun_once(kind):
    response = kind(REQUESTS[0], Sink(), CONFIG)
    response.start_response("200 OK", [("Content-Length", "1")])
    with pytest.raises(AssertionError):
        response.start_response("200 OK", [("Content-Length", "1")])


def test_gunicorn_does_not_look_at_what_is_common(monkeypatch):
    for name in ("start_response", "write", "send_headers"):
        monkeypatch.setattr(wsgi.Response, name, None)
    answer, *_ = sent(Response, REQUESTS[0], "200 OK", [TYPE, ("Content-Length", "3")])
    assert answer.endswith(b"Content-Type: application/json\r\nContent-Length: 3\r\n\r\nabc")
