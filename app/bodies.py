"""Request bodies as the server hands them over: Flask's own limit cuts a chunked body silently."""

from contextlib import suppress
from typing import Final

from flask import Flask, Response, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import RequestEntityTooLarge

from app.errors import BadRequest

MAX_BODY_BYTES: Final = 2 * 1024 * 1024
_MOST_READ_BYTES: Final = 32 * MAX_BODY_BYTES

# What gunicorn raises while a body is read: for a client that is gone, and for a broken chunk.
_BROKEN: Final = (OSError, ParseException)


def register(app: Flask) -> None:
    """Read what is left of the body before every answer of ``app``."""
    app.after_request(_drain)


def read() -> bytes:
    """Return the body, however it was framed.

    Raises ``RequestEntityTooLarge`` above the limit and ``BadRequest`` if it is broken off.
    """
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    try:
        body: bytes = request.environ["wsgi.input"].read(MAX_BODY_BYTES + 1)
    except _BROKEN:
        raise BadRequest("The body is broken off") from None
    if len(body) > MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    return body


def _drain(response: Response) -> Response:
    """Read on, within reason: a client that is still sending does not see the answer.

    Also gunicorn promises to keep the connection and then closes it if much is unread.
    """
    if (request.content_length or 0) <= _MOST_READ_BYTES:
        with suppress(*_BROKEN):
            for _ in range(_MOST_READ_BYTES // MAX_BODY_BYTES):
                if not request.environ["wsgi.input"].read(MAX_BODY_BYTES):
                    break
    return response
