"""Logs are whole JSON lines; they never flood, and nobody waits for who reads them."""

import fcntl
import json
import logging
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from app.observability import Stream, logs
from tests.shared.api import Api
from tests.shared.forks import fork, server
from tests.shared.waiting import COMMAND, LIFE

REQUEST = {
    "time",
    "level",
    "request_id",
    "principal",
    "endpoint",
    "method",
    "kid",
    "new_kid",
    "alg",
    "status",
    "error",
    "queue_ms",
    "hsm_ms",
    "total_ms",
}
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""syslog(3)"""
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def test_each_request_has_one_line_and_every_answer_its_id(environment, tmp_path):
    output = tmp_path / "stdout"
    settings = environment | {"JOSE_HSM_SERVER_TIMING": "1"}
    with output.open("wb") as log, server(settings, log=log) as running:
        api = Api.over_http(running.url)
        kid = api.create(kty="oct", alg="HS256")["kid"]
        body = {"kid": kid, "alg": "HS256", "data": ""}
        given = api.request("POST", "/mac", json=body, headers={"X-Request-Id": "a.B-1/="})
        assert given.headers["X-Request-Id"] == "a.B-1/="
        assert given.headers["Server-Timing"].startswith("queue;dur=")
        for odd in ("", "a b", "x" * 129, "secret,other"):
            made = api.request("GET", "/unknown", headers={"X-Request-Id": odd})
            assert len(made.headers["X-Request-Id"]) == 32
        traced = api.request("POST", "/mac", json=body, headers={"traceparent": TRACEPARENT})
        assert traced.status == 200
        odd_kid = {"kid": "secret", "alg": "HS256", "data": ""}
        assert api.post("/mac", odd_kid).status == 404
        requests.get(running.url + "/health/live", timeout=LIFE.seconds)
    written = [line for line in lines(output) if "endpoint" in line]
    assert all(line.keys() - {"trace_id"} == REQUEST for line in written)
    assert sum("trace_id" in line for line in written) == 1
    assert [line["endpoint"] for line in written] == [
        "keys.create",
        "signing.mac",
        *4 * [None],
        "signing.mac",
        "signing.mac",
    ]
    created, used, *_, traced_line, refused = written
    assert traced_line["trace_id"] == TRACE_ID
    assert created["new_kid"] == used["kid"] == kid
    assert (used["request_id"], used["alg"], used["status"]) == ("a.B-1/=", "HS256", 200)
    assert (refused["kid"], refused["status"], refused["error"]) == (None, 404, "not_found")
    assert used["total_ms"] > used["hsm_ms"] > 0
    assert output.read_text().startswith("jose-hsm serves http://")


def test_a_reader_that_stops_stops_no_request(environment):
    reader, writer = os.pipe()  # nobody reads it
    held = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(writer, "wb") as log, server(environment, workers=1, log=log) as running:
        api = Api.over_http(running.url)
        kid = api.create(kty="oct", alg="HS256")["kid"]
        for _ in range(held // 40):  # several times as many lines as it holds
            api.ok("/mac", {"kid": kid, "alg": "HS256", "data": ""})
    os.close(reader)


def test_lines_that_nobody_takes_are_dropped_and_counted(monkeypatch):
    monkeypatch.setattr("app.observability.stream._MOST_WAITING", 10)
    dropped: list[int] = []
    stream = Stream(-1, dropped=dropped.append)
    for _ in range(15):
        stream.put("line")
    assert sum(dropped) == 5
    stream.start()  # its file is not open
    stream.stop()
    assert sum(dropped) == 15


def test_lines_of_several_writers_on_one_pipe_stay_whole():
    reader, writer = os.pipe()
    streams = [Stream(writer) for _ in range(3)]
    received = bytearray()

    def read() -> None:
        while part := os.read(reader, 65536):
            received.extend(part)

    thread = threading.Thread(target=read)
    thread.start()
    for stream in streams:
        stream.start()
    for number in range(500):
        for stream in streams:
            stream.put(json.dumps({"number": number, "text": "x" * (number * 7 % 3000)}))
    for stream in streams:
        stream.stop()
    os.close(writer)
    thread.join()
    os.close(reader)
    assert len([json.loads(line) for line in received.splitlines()]) == 1500


def log_on_both() -> None:
    """Write a line of each level on stdout, and then on stderr."""
    logger = logging.getLogger("app.test")
    for fd in (1, 2):
        stream = Stream(fd)
        logs.configure(stream, "debug")
        stream.start()
        for level in PRIORITIES:
            logger.log(getattr(logging, level.upper()), "on %d: %s", fd, level)
        stream.stop()


def test_the_journal_is_told_how_much_a_line_matters(tmp_path):
    """systemd names what it reads by device and inode: a stream that leads elsewhere is as ever."""
    paths = (tmp_path / "stdout", tmp_path / "stderr")
    with ExitStack() as files:
        out, err = (files.enter_context(path.open("wb")).fileno() for path in paths)
        read = os.fstat(err)
        environment = {**os.environ, "JOURNAL_STREAM": f"{read.st_dev}:{read.st_ino}"}
        arguments = [__name__, log_on_both.__name__, "[]"]
        process = fork("driver", arguments, environment, files=(out, err), proves=True)
        assert process.wait(COMMAND.seconds) == 0
    stdout, stderr = (path.read_text().splitlines() for path in paths)
    assert [json.loads(line)["level"] for line in stdout[:5]] == list(PRIORITIES)
    assert [(line[:3], json.loads(line[3:])["level"]) for line in stderr] == [
        (f"<{number}>", level) for level, number in PRIORITIES.items()
    ]


class Kept(Stream):
    """Keeps lines."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.lines: list[str] = []

    def put(self, line: str, level: str = "info") -> None:
        self.lines.append(line)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def log(kept: Kept) -> logging.Logger:
    logger = logging.Logger("app.test")
    logger.addHandler(logs.Lines(kept))
    return logger


def test_a_storm_is_a_line_a_second_and_cause(kept, log):
    started = time.monotonic()
    for _ in range(500):
        log.warning("the token is lost")
        log.warning("the token answered %s", "CKR_DEVICE_ERROR")
    seconds = time.monotonic() - started
    assert 2 <= len(kept.lines) <= 2 * (2 + seconds)


def test_an_error_shows_where_and_what_and_not_what_it_says(kept, log):
    try:
        try:
            int("top-secret")
        except ValueError as error:
            raise RuntimeError("top-secret") from error
    except RuntimeError:
        log.exception("internal error")
    (line,) = kept.lines
    shown = json.loads(line)
    assert "builtins.ValueError" in shown["traceback"]
    assert "builtins.RuntimeError" in shown["traceback"]
    assert "test_logs.py" in shown["traceback"]
    assert shown["traceback"].count("top-secret") == 2  # the source, which holds no data


def test_a_line_fits_into_a_pipe(kept, log):
    log.warning("%s", "€" * 100_000)
    assert len(kept.lines[0]) < 4096
    assert json.loads(kept.lines[0])["message"].endswith("€")
