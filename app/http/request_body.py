"""Request bodies as the server hands them over: Flask's own limit cuts a chunked body silently."""

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from flask import Flask, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import RequestEntityTooLarge

from app.config import MAX_BODY_BYTES
from app.errors import BadRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_MOST_READ_BYTES: Final = 32 * MAX_BODY_BYTES

# What gunicorn raises while a body is read: for a client that is gone, and for a broken chunk.
_BROKEN: Final = (OSError, ParseException)


def register(app: Flask) -> None:
    """Read what is left of the body before every answer of ``app``."""
    app.wsgi_app = _draining(app.wsgi_app)  # type: ignore[method-assign, assignment]  # as Flask proposes


def read() -> bytes:
    """Return the body, however it was framed.

    Raises ``RequestEntityTooLarge`` above the limit and ``BadRequest`` if it is broken off.
    """
    environ = request.environ
    if _content_length(environ) > MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    try:
        body: bytes = environ["wsgi.input"].read(MAX_BODY_BYTES + 1)
    except _BROKEN:
        raise BadRequest("The body is broken off: fewer bytes came than were announced") from None
    if len(body) > MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    return body


def _draining(application: "WSGIApplication") -> "WSGIApplication":
    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        response = application(environ, start_response)
        _drain(environ)
        return response

    return answer


def _drain(environ: "WSGIEnvironment") -> None:
    """Read on, within reason: a client that is still sending does not see the answer.

    Also gunicorn promises to keep the connection and then closes it if much is unread.
    """
    if _content_length(environ) <= _MOST_READ_BYTES:
        with suppress(*_BROKEN):
            for _ in range(_MOST_READ_BYTES // MAX_BODY_BYTES):
                if not environ["wsgi.input"].read(MAX_BODY_BYTES):
                    break


def _content_length(environ: "WSGIEnvironment") -> int:
    """Return 0 if nothing is said; the server has made sure that it is a number."""
    return int(environ.get("CONTENT_LENGTH") or 0)
