"""One file a resource; views load, call, dump."""

from typing import Any, cast

from flask import current_app, request
from marshmallow import Schema
from marshmallow.experimental.context import Context
from werkzeug.exceptions import UnsupportedMediaType

from app import bodies, strict_json
from app.errors import BadRequest
from app.keyring import Keyring
from hsm import Hsm, TokenUnavailable


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
        body = strict_json.loads(bodies.read())
    except ValueError:
        raise BadRequest(
            "The body must be one JSON object, strictly (RFC 8259), in UTF-8"
        ) from None
    with Context(_refusals()):
        return schema.load(body)


def _refusals() -> dict[str, str]:
    """Return why algorithms are not offered; nothing is known while the token is away."""
    try:
        offers = token().offers()
    except TokenUnavailable:
        return {}
    return {name: offer.reason for name, offer in offers.items() if offer.reason is not None}
