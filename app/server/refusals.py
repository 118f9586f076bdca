"""What the server itself answers, in the form of all answers of the service."""

import json
from http import HTTPStatus
from typing import Any

from app.http.answers import HTTP_ERRORS, RETRY_AFTER_SECONDS
from app.server.clock import http_date


def refusal(status: int, code: str, description: str) -> bytes:
    """Return an answer after which the connection ends."""
    body = json.dumps({"error": code, "description": description})
    retry = f"Retry-After: {RETRY_AFTER_SECONDS}\r\n" if code == "unavailable" else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nDate: {http_date()}\r\n"
        f"Connection: close\r\n{retry}Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return f"{head}{body}".encode("latin-1")


def timed_out() -> bytes:
    """Return the answer to a request that has not come whole in time."""
    return refusal(408, *HTTP_ERRORS[408])


def overloaded() -> bytes:
    """Return the answer to what there is no memory for."""
    return refusal(503, "unavailable", "Service unavailable: too much is being sent at once")


def write_error(sink: Any, status: int, reason: str, _message: str) -> None:
    """Write what gunicorn refuses, and do not repeat what was sent."""
    is_ours = status == HTTPStatus.INTERNAL_SERVER_ERROR  # 501 is of a transfer coding
    code = "internal_error" if is_ours else "bad_request"
    sink.sendall(refusal(status, code, reason))
