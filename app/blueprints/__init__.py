"""One file a resource; views load, call, dump."""

from typing import Any, Final, cast

from flask import current_app, request
from marshmallow import Schema
from marshmallow.experimental.context import Context
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from app import strict_json
from app.errors import BadRequest
from app.keyring import Keyring
from hsm import Hsm, TokenUnavailable

MAX_BODY_BYTES: Final = 2 * 1024 * 1024
_DRAINED_PIECES: Final = 32


def keyring() -> Keyring:
    """Return the keyring of this application."""
    return cast(Keyring, current_app.extensions["keyring"])


def token() -> Hsm:
    """Return the token of this application."""
    return cast(Hsm, current_app.extensions["hsm"])


def load(schema: Schema) -> Any:
    """Return the body of the request, checked by ``schema``."""
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.mimetype != "application/json" or charset != "utf-8" or request.content_encoding:
        raise UnsupportedMediaType
    try:
        body = strict_json.loads(_read_body())
    except ValueError:
        raise BadRequest("The body is not a JSON object") from None
    with Context(_refusals()):
        return schema.load(body)


def _read_body() -> bytes:
    """Return the body, however it was framed; raise ``RequestEntityTooLarge`` above the limit.

    Read from the server itself: Flask cuts a chunked body at the limit and says nothing. A body
    that is too large is read to its end, within reason, because a client that is still sending
    when the connection closes never sees the answer.
    """
    stream = request.environ["wsgi.input"]
    try:
        body: bytes = stream.read(MAX_BODY_BYTES + 1)
        if len(body) <= MAX_BODY_BYTES:
            return body
        for _ in range(_DRAINED_PIECES):
            if not stream.read(MAX_BODY_BYTES):
                break
    except OSError:  # what gunicorn raises for a broken chunk or a lost client
        raise BadRequest("The body is broken off") from None
    raise RequestEntityTooLarge


def _refusals() -> dict[str, str]:
    """Return why algorithms are not offered; nothing is known while the token is away."""
    try:
        offers = token().offers()
    except TokenUnavailable:
        return {}
    return {name: offer.reason for name, offer in offers.items() if offer.reason is not None}
