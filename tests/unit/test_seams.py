"""What we use of libraries by private names is there, and is what it was when we read it.

A fingerprint is that of source which ours replaces or repeats, or is called by. When one of these
tests fails after an upgrade, read what has changed, change ours, and write the new fingerprint.
"""

import hashlib
import inspect
import re
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from flask import Flask, Request, ctx, request
from gunicorn import config, sock, util
from gunicorn.http import wsgi
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.message import Request as ParsedRequest
from gunicorn.http.unreader import IterUnreader
from gunicorn.workers.base import Worker as BaseWorker
from gunicorn.workers.gthread import ThreadWorker
from marshmallow import Schema, fields, post_load, validates_schema
from marshmallow.decorators import POST_LOAD, VALIDATES_SCHEMA
from pkcs11 import _pkcs11, types
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    metrics,
    multiprocess,
    values,
)
from werkzeug import wrappers
from werkzeug.routing import Rule
from werkzeug.sansio import request as sansio_request
from werkzeug.sansio import response as sansio_response

from app.observability.metrics import Metrics
from app.observability.multiprocess import Buffer, mark_of, observe_all
from app.registry import Registry
from app.registry.databases.queries import FIND
from app.server.intake import Intake
from app.server.refusals import write_error
from app.server.worker import Worker
from tests.unit.test_registry import PAIR


def fingerprint(source: Any) -> str:
    text = source if isinstance(source, str) else inspect.getsource(source)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def pyx(name: str) -> str:
    """The source of a class of python-pkcs11, which is compiled."""
    text = Path(_pkcs11.__file__).with_name("_pkcs11.pyx").read_text("utf-8")
    header = rf"^(?:cdef )?class {name}\([^)]*\):\n"
    [source] = re.findall(rf"{header}.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return str(source)


SOURCES = MappingProxyType(
    {
        # app/schemas/schema.py repeats these for a body that is good.
        "marshmallow load": (Schema._do_load, "85fa0007429d"),
        "marshmallow fields": (Schema._deserialize, "4e0d764cb266"),
        "marshmallow field": (fields.Field.deserialize, "9c693a134c08"),
        "marshmallow dump": (fields.Field.serialize, "0578e860c0a0"),
        # app/server is called by these, and repeats what gunicorn's own worker does.
        "gunicorn start": (BaseWorker.init_process, "114caccd7a0e"),
        "gunicorn stop": (BaseWorker.handle_exit, "e2f7159c426d"),
        "gunicorn error": (BaseWorker.handle_error, "75426448389b"),
        "gunicorn refusal": (util.write_error, "bd0143a03c15"),
        "gunicorn request": (ThreadWorker.handle_request, "6d0de5b91910"),
        "gunicorn parse": (ParsedRequest._parse_python, "ed07ffec5178"),
        "gunicorn request line": (ParsedRequest.parse_request_line, "77187ebabb46"),
        "gunicorn fields": (ParsedRequest.parse_headers, "fe09a6b5e706"),
        "gunicorn policy": (ParsedRequest._apply_header_policy, "ac812cc2fe6b"),
        "gunicorn message": (ParsedRequest.__init__, "f1feb7cdea22"),
        "gunicorn tls": (sock.ssl_context, "069b9e2751d0"),
        # app/server/framing writes what these would.
        "gunicorn answer": (wsgi.Response.start_response, "59799d9ff136"),
        "gunicorn head": (wsgi.Response.default_headers, "cb490cea5d6f"),
        "gunicorn body": (wsgi.Response.write, "a13659ff072c"),
        "gunicorn close": (ParsedRequest.should_close, "37c454bfb3e3"),
        # app/http/application.py does what these do, or fills what they would.
        "flask call": (Flask.wsgi_app, "b813e40b29d1"),
        "flask dispatch": (Flask.full_dispatch_request, "70d46cf2d53c"),
        "flask end": (Flask.finalize_request, "c1bcdc5b112f"),
        "flask contexts": (ctx.RequestContext.push, "ace499f160e0"),
        "werkzeug request": (wrappers.Request.__init__, "7188609a18d8"),
        "werkzeug bare request": (sansio_request.Request.__init__, "7a942473eba0"),
        "werkzeug answer": (wrappers.Response.__init__, "5cc1ac2c6862"),
        "werkzeug bare answer": (sansio_response.Response.__init__, "0d32fd6f20d5"),
        # app/http/application.py leaves out what this has compiled.
        "werkzeug rule": (Rule.compile, "96edc39424f3"),
        # app/observability/multiprocess.py puts a buffer before it, and repeats the other.
        "prometheus value": (values.MultiProcessValue, "8077cd2c482f"),
        "prometheus histogram": (metrics.Histogram.observe, "38beca3be1d1"),
        # hsm/cryptoki binds these to sessions of its own, and makes ``lib`` without its __init__.
        "pkcs11 encrypt": (pyx("EncryptMixin"), "7d843a1af8eb"),
        "pkcs11 decrypt": (pyx("DecryptMixin"), "5d1b071eb170"),
        "pkcs11 sign": (pyx("SignMixin"), "217a0d43d5c1"),
        "pkcs11 verify": (pyx("VerifyMixin"), "452bc55b6bd8"),
        "pkcs11 wrap": (pyx("WrapMixin"), "46fdbc8e4870"),
        "pkcs11 unwrap": (pyx("UnwrapMixin"), "c24d03f6596a"),
        "pkcs11 derive": (pyx("DeriveMixin"), "eb5f32f3183b"),
        "pkcs11 object": (pyx("Object"), "b69421401dcd"),
        "pkcs11 library": (pyx("lib"), "2975e2e37c10"),
        "pkcs11 verbs": (types, "5fa3377c02a0"),
    }
)


@pytest.mark.parametrize("name", SOURCES)
def test_what_ours_repeats_is_what_it_was(name):
    source, known = SOURCES[name]
    assert fingerprint(source) == known


# --- marshmallow: app/schemas/schema.py ---


class Body(Schema):
    """One with a check and a maker."""

    member: fields.Field[Any] = fields.Field(data_key="name")

    @validates_schema
    def check(self, body: Any, **_kwargs: Any) -> None:
        """Check nothing."""

    @post_load
    def make(self, body: Any, **_kwargs: Any) -> Any:
        """Return the body."""
        return body


def test_marshmallow_has_the_hooks_of_a_schema_by_their_names():
    schema = Body()
    assert [hook[0] for hook in schema._hooks[VALIDATES_SCHEMA]] == ["check"]
    assert [hook[0] for hook in schema._hooks[POST_LOAD]] == ["make"]


def test_marshmallow_asks_a_field_for_its_value_as_we_do():
    field = Body().load_fields["member"]
    assert field._deserialize("value", "name", {"name": "value"}) == "value"
    assert field._serialize("value", "name", {"name": "value"}) == "value"


# --- gunicorn: app/server ---


def test_gunicorn_has_what_our_worker_uses_of_its_own():
    taken = ("handle_error", "handle_exit", "init_process", "load_wsgi", "notify", "run")
    assert all(callable(getattr(BaseWorker, name)) for name in taken)
    cfg = config.Config()
    worker = Worker(0, 4711, [], SimpleNamespace(), 30, cfg, SimpleNamespace())
    assert (worker.alive, worker.nr, worker.ppid, worker.sockets) == (True, 0, 4711, [])
    worker.tmp.close()
    assert worker.max_requests > 0
    assert isinstance(worker.PIPE, list | tuple)
    assert "write_error" in inspect.getsource(BaseWorker.handle_error)
    assert list(inspect.signature(util.write_error).parameters)[1:3] == ["status_int", "reason"]
    assert len(inspect.signature(write_error).parameters) == 4


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
BODIES = {
    LengthReader: b"Content-Length: 4\r\n\r\nbody",
    ChunkedReader: b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("reader", BODIES)
def test_gunicorn_parses_from_pieces_and_gives_back_what_is_left(reader):
    unreader = IterUnreader([HEAD + BODIES[reader]])

    class Parsed(ParsedRequest):  # type: ignore[misc]  # gunicorn has no types
        _policy_expect_continue = False

    parsed = Parsed(config.Config(), unreader, ("127.0.0.1", 1), 1)
    assert isinstance(parsed.body.reader, reader)
    assert reader is ChunkedReader or parsed.body.reader.length == 4
    assert (parsed.method, parsed.version) == ("POST", (1, 1))
    assert ("HOST", "x") in parsed.headers
    rest = unreader.take_buffered()
    assert rest == BODIES[reader].partition(b"\r\n\r\n")[2]
    unreader.unread(rest + b"next")
    assert parsed.body.read() == b"body"
    assert unreader.take_buffered() == b"next"


def test_gunicorn_writes_an_answer_to_the_socket_it_is_given():
    intake = Intake(config.Config(), ("127.0.0.1", 1), 1)
    intake.add(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    written: list[bytes] = []
    response, environ = wsgi.create(
        intake.request, None, ("127.0.0.1", 1), ("127.0.0.1", 2), config.Config()
    )
    response.sock = SimpleNamespace(sendall=written.append)
    response.force_close()
    response.start_response("200 OK", [("Content-Length", "4")])
    response.write(b"body")
    response.close()
    assert environ["REQUEST_METHOD"] == "GET"
    assert (response.status_code, response.should_close()) == (200, True)
    answer = b"".join(written)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nbody")


# --- prometheus_client: app/observability/multiprocess.py ---


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Buffer:
    """A buffer that has taken over, with its files in a directory of its own."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    buffer = Buffer()
    buffer.take_over()
    return buffer


def test_prometheus_makes_its_values_of_the_class_that_we_put_there(counted, tmp_path):
    counter = Counter("counted", "x", registry=CollectorRegistry())
    counter.inc(3)
    files = [str(path) for path in tmp_path.glob("counter_*.db")]
    assert sample(files) == 0
    counted.flush()
    assert sample(files) == 3


def test_whoever_counts_again_is_told_what_has_been_counted_since(counted, tmp_path):
    theirs = Metrics([("signing.sign", 200), ("signing.sign", 500)])
    counts = []
    for status in (200, 200, 500):
        theirs._requests["signing.sign", str(status)].inc()
        mark = mark_of(str(tmp_path), "counter")
        assert theirs.counts() is theirs.counts()
        theirs._buffer.flush()
        assert mark_of(str(tmp_path), "counter") != mark
        counts.append([(status, number) for _, status, number in theirs.counts()])
    assert counts == [[(200, 1)], [(200, 2)], [(200, 2), (500, 1)]]


def sample(files: list[str]) -> float:
    [family] = multiprocess.MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]  # it is not
    [found] = [sample for sample in family.samples if sample.name == "counted_total"]
    return float(found.value)


def test_many_amounts_are_observed_as_one_by_one():
    amounts = (0.0, 0.5, 0.25, 1.0, 1.5, 2.5, 8.0)
    together, one_by_one = (CollectorRegistry() for _ in range(2))
    observe_all(Histogram("h", "x", buckets=(0.5, 1.0, 2.5), registry=together), amounts)
    histogram = Histogram("h", "x", buckets=(0.5, 1.0, 2.5), registry=one_by_one)
    for amount in amounts:
        histogram.observe(amount)
    assert samples_of(together) == samples_of(one_by_one)


def samples_of(registry: CollectorRegistry) -> dict[tuple[str, str | None], float]:
    """Return values by name and bucket, but for when the histogram was made."""
    [family] = registry.collect()
    return {
        (sample.name, sample.labels.get("le")): sample.value
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_prometheus_asks_of_a_value_what_ours_has(counted):
    def public(value: type) -> set[str]:
        return {name for name in dir(value) if not name.startswith("_")}

    asked = {name for name in dir(values.MutexValue) if not name.startswith("_")}
    assert public(values.ValueClass) == asked | {"buffer", "flush", "restore"}
    assert values.ValueClass._multiprocess
    assert "values.ValueClass(" in inspect.getsource(metrics)


# --- SQLAlchemy: app/registry/databases/lookup.py ---


def test_sqlalchemy_reads_a_row_as_our_lookup_does(registry_url):
    registry = Registry(registry_url, host="host")
    registry.insert(PAIR)
    with registry._database.reading() as connection:
        theirs = connection.execute(FIND, {"kid": str(PAIR.kid)}).one()
    lookup = registry._database.lookup(FIND, tuple)
    assert registry._database.one(lookup, kid=str(PAIR.kid)) == tuple(theirs)
    registry._database.engine.dispose()


# --- Werkzeug: app/observability/requests.py ---


def test_werkzeug_gives_the_request_behind_its_proxy():
    with Flask(__name__).test_request_context("/x"):
        current: Any = request
        assert type(current._get_current_object()) is Request
        assert current._get_current_object().path == "/x"
