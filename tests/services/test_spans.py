"""Spans of requests reach a collector, by OTLP; one in trouble troubles nobody else."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
import requests
from flask import Flask
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from app.config import Config
from app.http.request_body import BodyWanted
from app.http.router import KINDS
from app.http.turns import TurnAwaited
from app.observability import Metrics, Requests, Stream
from app.observability.spans import Spans
from tests.services.test_logs import TRACE_ID, TRACEPARENT, lines
from tests.shared.api import Api
from tests.shared.forks import completed, server
from tests.shared.waiting import LIFE, PATIENCE_SECONDS, until

PARENT = TRACEPARENT.split("-")[2]
SECRET = "of-the-collector"
Mode = Literal["answers", "says nonsense", "is silent"]


@dataclass
class Collector:
    """What a collector has got, and how it behaves; nobody gets in before it ``listens``."""

    server: ThreadingHTTPServer
    mode: Mode = "answers"
    is_listening: bool = False
    requests: list[tuple[str, str | None, ExportTraceServiceRequest]] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def settings(self) -> dict[str, str]:
        """Of a service that sends it spans, soon and not for long."""
        return {
            "JOSE_HSM_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server.server_address[1]}",
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={SECRET}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
        }

    def listens(self) -> None:
        self.is_listening = True
        self.server.server_activate()
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def spans(self) -> list[Span]:
        return [
            span
            for _, _, request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def span_of(self, request_id: str) -> Span:
        """The one of a request, as soon as it is there; it is sent again if its answer is late."""

        def found() -> Span | None:
            spans = [s for s in self.spans() if told(s)["jose_hsm.request_id"] == request_id]
            assert len({span.span_id for span in spans}) < 2
            return next(iter(spans), None)

        return until(found)


def told(span: Span) -> dict[str, Any]:
    return {
        one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes
    }


@contextmanager
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        it: Collector

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.it.asked.set()
            if self.it.mode == "is silent":
                self.it.released.wait()
            elif self.it.mode == "says nonsense":
                self.wfile.write(b"\x00\xff no HTTP\r\n\r\n")
            else:
                got = ExportTraceServiceRequest.FromString(body)
                self.it.requests.append((self.path, self.headers["Authorization"], got))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False) as listener:
        listener.daemon_threads = True
        listener.server_bind()
        Handler.it = it = Collector(listener)
        try:
            yield it
        finally:
            it.released.set()
            if it.is_listening:
                listener.shutdown()


@dataclass
class Traced:
    """A service of two workers that sends spans."""

    url: str
    api: Api
    collector: Collector
    log: Path

    def asks(self, request_id: str, method: str, path: str, **options: Any) -> int:
        headers = {"X-Request-Id": request_id, **options.pop("headers", {})}
        return self.api.request(method, path, headers=headers, **options).status


@contextmanager
def tracing(environment: dict[str, str], log: Path) -> Iterator[Traced]:
    """A service whose collector does not listen yet."""
    with collector() as it, log.open("wb") as output:
        settings = environment | it.settings
        with server(settings, workers=2, log=output) as running:
            yield Traced(running.url, Api.over_http(running.url), it, log)


@pytest.fixture(scope="module")
def well(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """A service whose collector is well."""
    with tracing(environment, tmp_path_factory.mktemp("spans") / "stdout") as traced:
        traced.collector.listens()
        yield traced


def test_a_collector_that_is_away_slow_or_mad_fails_no_request(environment, tmp_path):
    """What was lost is lost, and what comes later arrives."""
    with tracing(environment, tmp_path / "stdout") as traced:
        assert traced.asks("away", "GET", "/capabilities") == 200
        until(lambda: "Failed to export" in traced.log.read_text())
        traced.collector.mode = "says nonsense"
        traced.collector.listens()
        for mode in ("says nonsense", "is silent"):
            traced.collector.mode = mode
            traced.collector.asked.clear()
            assert traced.asks("lost", "GET", "/capabilities") == 200
            assert traced.collector.asked.wait(PATIENCE_SECONDS)
            assert traced.asks("lost", "GET", "/capabilities") == 200
        traced.collector.mode = "answers"
        traced.collector.released.set()
        assert traced.asks("found", "GET", "/capabilities") == 200
        assert traced.collector.span_of("found").name == "capabilities.show"
        assert SECRET not in traced.log.read_text()


def test_each_request_has_a_span_in_the_trace_of_its_caller(well):
    kid = well.api.create(kty="oct", alg="HS256")["kid"]
    body = {"kid": kid, "alg": "HS256", "data": "c2VjcmV0"}
    given = {"traceparent": TRACEPARENT}
    assert well.asks("traced", "POST", "/mac?secret=1", json=body, headers=given) == 200
    span = well.collector.span_of("traced")
    assert (span.name, span.kind) == ("signing.mac", Span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, PARENT)
    assert span.end_time_unix_nano > span.start_time_unix_nano
    said = told(span)
    assert said.pop("jose_hsm.hsm_ms") > 0
    assert said.pop("jose_hsm.queue_ms") >= 0
    assert said == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/crypto/mac",
        "jose_hsm.alg": "HS256",
        "jose_hsm.kid": kid,
        "jose_hsm.request_id": "traced",
        "network.protocol.version": "1.1",
        "url.scheme": "http",
    }
    path, authorization, request = well.collector.requests[-1]
    assert (path, authorization) == ("/v1/traces", SECRET)
    resource = told(request.resource_spans[0].resource)
    assert resource["service.name"] == "jose-hsm"
    assert resource["service.version"]
    assert b"secret" not in request.SerializeToString()


def test_a_request_without_a_trace_begins_one_that_its_line_names(well):
    assert well.asks("first", "GET", "/keys/secret") == 404
    span = well.collector.span_of("first")
    [line] = until(lambda: of_log(well.log, "first"))
    assert span.trace_id.hex() == line["trace_id"]
    assert span.parent_span_id == b""
    assert told(span)["error.type"] == "not_found"
    assert span.status.code == Status.STATUS_CODE_UNSET  # the caller's mistake, and not ours
    assert "secret" not in str(span)


def of_log(path: Path, request_id: str) -> list[dict[str, Any]]:
    return [line for line in lines(path) if line.get("request_id") == request_id]


def test_a_caller_who_wants_no_trace_has_none_and_neither_have_probes(well):
    given = {"traceparent": TRACEPARENT[:-2] + "00"}
    assert well.asks("untraced", "GET", "/capabilities", headers=given) == 200
    url, probe = well.url, {"X-Request-Id": "probe"}
    assert requests.get(f"{url}/health/live", headers=probe, timeout=LIFE.seconds).ok
    assert well.asks("last", "GET", "/capabilities") == 200
    well.collector.span_of("last")
    ids = {told(span)["jose_hsm.request_id"] for span in well.collector.spans()}
    assert ids.isdisjoint({"untraced", "probe"})


@contextmanager
def watched(config: Config, it: Collector, monkeypatch: Any) -> Iterator[tuple[Flask, Spans]]:
    """An application in this process whose spans the collector gets."""
    it.listens()
    for name, value in (it.settings | {"OTEL_EXPORTER_OTLP_TIMEOUT": "60"}).items():
        monkeypatch.setenv(name, value)
    app = Flask(__name__)
    spans = Spans(it.settings["JOSE_HSM_OTLP_ENDPOINT"], lambda _asked, _now, made: made, KINDS)
    Requests(config, Stream(-1), Metrics({}, {}), spans.end, KINDS).register(app)
    spans.register(app)
    yield app, spans
    spans.stop()


def test_the_end_waits_for_no_collector(config, monkeypatch):
    """Its thread would wait for as long as a collector may take, which is a minute here."""
    monkeypatch.setattr("app.observability.spans._FLUSH_SECONDS", 0.05)
    with collector() as silent:
        silent.mode = "is silent"
        with watched(config, silent, monkeypatch) as (app, spans):
            assert app.test_client().get("/").status_code == 404
            assert silent.asked.wait(PATIENCE_SECONDS)
            spans.stop()
            assert not silent.released.is_set()
            assert spans._ending.is_alive()


@pytest.mark.parametrize("reason", [BodyWanted, TurnAwaited])
def test_a_request_that_is_answered_later_leaves_no_span_to_the_next_one(
    config, monkeypatch, reason
):
    def put_off() -> str:
        raise reason

    with collector() as it:
        with watched(config, it, monkeypatch) as (app, _):
            app.add_url_rule("/sign", "signing.sign", put_off)
            app.add_url_rule("/live", "health.live", lambda: "live")
            client = app.test_client()
            with pytest.raises(reason):
                client.get("/sign")
            for path, name in (("/live", "probe"), ("/", "last")):
                client.get(path, headers={"X-Request-Id": name})
            it.span_of("last")
        assert [told(span)["jose_hsm.request_id"] for span in it.spans()] == ["last"]


def test_a_service_without_a_collector_imports_none_of_it(environment):
    code = "import sys, app.factory; print([n for n in sys.modules if 'opentelemetry' in n])"
    assert completed("python", [code], environment).stdout == "[]\n"
