"""Each request: its id, its times, its line, its metrics, its audit."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from flask import Flask, Request, Response

from app import current_request
from app.auth.asked import asked
from app.config import Config
from app.current_request import RequestRecord
from app.observability.kinds import Kind
from app.observability.logs import line
from app.observability.metrics import Metrics
from app.observability.stream import Stream

Audit = Callable[[Request, RequestRecord, Response], Response]

NO_ENDPOINT: Final = "none"
"""Stands in metrics for a path that is none."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Requests:
    """Watches every request from the first hook to the last."""

    def __init__(
        self,
        config: Config,
        stream: Stream,
        metrics: Metrics,
        audit: Audit,
        kinds: Mapping[str, Kind],
    ) -> None:
        self._stream = stream
        self._metrics = metrics
        self._audit = audit
        self._quiet = {name for name, kind in kinds.items() if kind is Kind.WATCH}
        self._levels = {"debug": ("debug", "info"), "info": ("info",)}.get(config.log_level, ())
        self._is_timing_sent = config.server_timing

    def register(self, app: Flask) -> None:
        """Watch the requests of ``app``; call before other hooks are registered."""
        app.before_request(self.begin)
        app.after_request(self.end)

    def begin(self) -> None:
        """Start the record of the request."""
        request = asked()
        told = request.environ.get
        current = current_request.begin(told("HTTP_X_REQUEST_ID", ""), told("HTTP_TRACEPARENT", ""))
        if request.view_args:
            current.name(kid=request.view_args.get("kid"))

    def end(self, response: Response) -> Response:
        """Audit the request; complete the headers; count; write the line."""
        request, current = asked(), current_request.current() or current_request.begin("")
        endpoint = request.endpoint
        response = self._audit(request, current, response)
        seconds = time.perf_counter() - current.started
        response.headers.add("X-Request-Id", current.request_id)
        if self._is_timing_sent:
            response.headers.add("Server-Timing", _timing(current, seconds))
        self._metrics.answered(endpoint or NO_ENDPOINT, response.status_code, seconds)
        level = "debug" if endpoint in self._quiet else "info"
        if level in self._levels:
            members = _members(request, current, response.status_code, seconds)
            self._stream.put(line(level=level, **members), level)
        current_request.end()
        return response


def _members(
    request: Request, current: RequestRecord, status: int, seconds: float
) -> dict[str, Any]:
    members = {
        **current.ids(),
        "principal": current.principal,
        "endpoint": request.endpoint,
        "method": request.method if request.method in METHODS else None,
        "kid": current.kid,
        "new_kid": current.new_kid,
        "alg": current.alg,
        "status": status,
        "error": current.error,
        "queue_ms": milliseconds(current.queue_seconds),
        "hsm_ms": milliseconds(current.hsm_seconds),
        "total_ms": milliseconds(seconds),
    }
    return members if current.parts is None else members | {"parts": current.parts}


def _timing(current: RequestRecord, seconds: float) -> str:
    waits = {"queue": current.queue_seconds, "token": current.hsm_seconds, "total": seconds}
    return ", ".join(f"{name};dur={milliseconds(wait)}" for name, wait in waits.items())


def milliseconds(seconds: float) -> float:
    """Return them as the log has them."""
    return round(1000 * seconds, 3)
