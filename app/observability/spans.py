"""A span of OpenTelemetry for each request, sent to a collector by opentelemetry's own packages.

Only where a collector is set is this imported. Variables of OpenTelemetry (``OTEL_…``) say all but
where the collector is.
"""

import atexit
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any, Final

from flask import Flask, Request, Response
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app import current_request
from app.auth.asked import asked
from app.current_request import RequestRecord
from app.observability.kinds import Kind
from app.observability.requests import METHODS, NO_ENDPOINT, Audit, milliseconds

_NAME: Final = "jose-hsm"
_PATH: Final = "/v1/traces"
_FLUSH_SECONDS: Final = 1.0
_SERVER_ERRORS: Final = 500
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_span: Final[ContextVar[Span | None]] = ContextVar("span", default=None)


class Spans:
    """Makes them. No request waits for the collector: what it does not take in time is dropped.

    Give it the requests to watch when ``Requests`` begins each before, and calls ``end`` to audit.
    """

    def __init__(self, endpoint: str, audit: Audit, kinds: Mapping[str, Kind]) -> None:
        self._audit = audit
        self._quiet = {name for name, kind in kinds.items() if kind is Kind.WATCH}
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint.rstrip("/") + _PATH)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(_NAME, version(_NAME))
        self._is_ending = threading.Event()
        self._ending = threading.Thread(target=self._shut_down, name="spans", daemon=True)

    def register(self, app: Flask) -> None:
        """Watch the requests of ``app``, and send spans. Call after fork, never before."""
        app.before_request(self.begin)
        self._ending.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Send what waits, for a short time at most: a collector may take as long as it likes."""
        atexit.unregister(self.stop)
        self._is_ending.set()
        self._ending.join(_FLUSH_SECONDS)

    def begin(self) -> None:
        """Begin the span of the request: its trace is the caller's, or else one of its own."""
        request, current = asked(), current_request.current()
        _span.set(None)  # of a request that this thread left to be answered later
        if current is None or request.endpoint in self._quiet:
            return
        span = self._tracer.start_span(
            request.endpoint or NO_ENDPOINT,
            context=_parent(request, current),
            kind=SpanKind.SERVER,
            attributes=_of_request(request),
        )
        if span.is_recording():
            current.trace_id = format_trace_id(span.get_span_context().trace_id)
            _span.set(span)

    def end(self, request: Request, current: RequestRecord, response: Response) -> Response:
        """Audit the request, and end its span."""
        response = self._audit(request, current, response)
        span = _span.get()
        if span is not None:
            _span.set(None)
            span.set_attributes(_of_answer(current, response.status_code))
            if response.status_code >= _SERVER_ERRORS:
                span.set_status(StatusCode.ERROR)
            span.end()
        return response

    def _shut_down(self) -> None:
        """Wait for the end; at that time no thread can be started any more."""
        self._is_ending.wait()
        self._provider.shutdown()


def _resource() -> Resource:
    """Return what the spans are of; what ``OTEL_SERVICE_NAME`` and its like say comes first."""
    ours = Resource({"service.name": _NAME, "service.version": version(_NAME)})
    return Resource.create().merge(ours).merge(OTELResourceDetector().detect())


def _parent(request: Request, current: RequestRecord) -> Context:
    """Return the caller's span, if there is one that is well-formed."""
    if current.trace_id is None:
        return Context()
    return _PROPAGATOR.extract({"traceparent": request.environ["HTTP_TRACEPARENT"]}, Context())


def _of_request(request: Request) -> dict[str, str]:
    """Return what is known at once: a path or a query as it was sent may have a secret in it."""
    protocol = request.environ.get("SERVER_PROTOCOL", "")
    rule = request.url_rule
    return {
        "http.request.method": request.method if request.method in METHODS else "_OTHER",
        "network.protocol.version": protocol.removeprefix("HTTP/"),
        "url.scheme": request.scheme,
        **({} if rule is None else {"http.route": rule.rule}),
    }


def _of_answer(current: RequestRecord, status: int) -> dict[str, Any]:
    """Return what is known at the end, as in the log."""
    attributes = {
        "http.response.status_code": status,
        "error.type": current.error,
        "jose_hsm.request_id": current.request_id,
        "jose_hsm.kid": current.kid,
        "jose_hsm.new_kid": current.new_kid,
        "jose_hsm.alg": current.alg,
        "jose_hsm.queue_ms": milliseconds(current.queue_seconds),
        "jose_hsm.hsm_ms": milliseconds(current.hsm_seconds),
    }
    return {name: value for name, value in attributes.items() if value is not None}
