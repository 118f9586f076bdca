"""Of gunicorn ``app.server`` uses what is not documented: here it is seen to be as it was."""

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from gunicorn import util
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import ExpectationFailed, InvalidRequestLine, NoMoreData, ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from gunicorn.workers.base import Worker

from app.server.clock import http_date

ROOT = Path(__file__).parents[2]
CLIENT = ("127.0.0.1", 1)
HEAD = b"POST /x?y=z HTTP/1.1\r\nHost: a\r\n"


def parsed(data: bytes, kind: type = Request):
    cfg = Config()
    cfg.set("http_parser", "python")
    return kind(cfg, IterUnreader([data]), CLIENT, 1)


def test_no_version_comes_unseen():
    assert version("gunicorn").split(".")[0] == "27"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "gunicorn>=27.0.1,<28" in project["dependencies"]


def test_what_is_overridden_and_called_is_there():
    parameters = [
        (Request.__init__, ["self", "cfg", "unreader", "peer_addr", "req_number"]),
        (wsgi.create, ["req", "sock", "client", "server", "cfg"]),
        (Worker.__init__, ["self", "age", "ppid", "sockets", "app", "timeout", "cfg", "log"]),
        (Worker.handle_error, ["self", "req", "client", "addr", "exc"]),
        (Worker.handle_exit, ["self", "sig", "frame"]),
        (Worker.init_process, ["self"]),
        (Worker.load_wsgi, ["self"]),
        (Worker.notify, ["self"]),
    ]
    for function, names in parameters:
        assert list(inspect.signature(function).parameters)[: len(names)] == names
    assert {"max_requests", "nr", "alive", "ppid", "PIPE"} <= set(
        inspect.getsource(Worker).replace(".", " ").replace("=", " ").split()
    )


def test_a_header_section_that_has_not_come_whole_is_told_from_a_bad_one():
    for end in range(1, len(HEAD)):
        with pytest.raises(NoMoreData):
            parsed(HEAD[:end])
    assert not issubclass(NoMoreData, ParseException)
    with pytest.raises(InvalidRequestLine):
        parsed(b"NONSENSE\r\n\r\n")


def test_a_body_has_a_reader_that_knows_its_framing():
    length = parsed(HEAD + b"Content-Length: 5\r\n\r\nabcdef")
    assert isinstance(length.body, Body)
    assert isinstance(length.body.reader, LengthReader)
    assert length.body.reader.length == 5
    assert parsed(HEAD + b"\r\n").body.reader.length == 0
    chunked = parsed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nnext")
    assert isinstance(chunked.body.reader, ChunkedReader)
    for request, body, rest in ((length, b"abcde", b"f"), (chunked, b"a", b"next")):
        assert request.body.read() == body
        assert request.unreader.take_buffered() == rest


def test_what_is_given_back_is_read_first():
    unreader = IterUnreader([b"ab"])
    assert unreader.read() == b"ab"
    assert unreader.read() == b""
    unreader.unread(b"cd")
    assert unreader.read(1) == b"c"
    assert unreader.take_buffered() == b"d"


def test_expectations_are_left_to_others_where_that_is_said():
    with pytest.raises(ExpectationFailed):
        parsed(HEAD + b"Expect: x\r\n\r\n")
    ours = type("Ours", (Request,), {"_policy_expect_continue": False})
    assert ("EXPECT", "x") in parsed(HEAD + b"Expect: x\r\n\r\n", ours).headers
    assert not parsed(HEAD + b"Expect: 100-continue\r\n\r\n", ours)._expected_100_continue


def test_an_answer_is_written_by_sendall_alone():
    class Sink:
        data = b""

        def sendall(self, data):
            self.data += data

    request = parsed(HEAD + b"\r\n")
    response, environ = wsgi.create(request, None, CLIENT, ("127.0.0.1", 2), request.cfg)
    response.sock = sink = Sink()
    assert environ["gunicorn.socket"] is None
    assert environ["wsgi.input"] is request.body
    response.start_response("200 OK", [("Content-Length", "2")])
    response.force_close()
    response.write(b"{}")
    response.close()
    assert response.should_close()
    assert sink.data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in sink.data
    assert sink.data.endswith(b"\r\n\r\n{}")


def test_errors_are_written_by_the_function_that_is_replaced(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "gunicorn.util.write_error",
        lambda sink, status, reason, _: seen.append((sink, status, reason)),
    )
    worker = Worker.__new__(Worker)
    worker.log = type("Log", (), {"warning": print})()
    worker.handle_error(None, "sink", CLIENT, InvalidRequestLine("x"))
    assert seen == [("sink", 400, "Bad Request")]


def test_the_date_is_that_of_the_function_that_is_replaced(monkeypatch):
    request = parsed(HEAD + b"\r\n")
    response = wsgi.Response(request, None, request.cfg)
    response.start_response("200 OK", [("Content-Length", "0")])
    monkeypatch.setattr("gunicorn.util.http_date", lambda: "now")
    assert "Date: now\r\n" in response.default_headers()


@pytest.mark.parametrize("seconds", [0.0, 951_782_399.9, 1_795_936_509.0, 4_102_444_800.5])
def test_the_date_is_the_one_that_gunicorn_makes(seconds, monkeypatch):
    monkeypatch.setattr("time.time", lambda: seconds)
    assert http_date() == util.http_date()
