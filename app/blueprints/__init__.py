"""One file a resource; views load, call, dump."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final, cast

from flask import current_app, g, request
from marshmallow import Schema
from marshmallow.experimental.context import Context
from werkzeug.exceptions import UnsupportedMediaType
from werkzeug.http import parse_options_header

from app import bodies, exchange, jose, strict_json
from app.asked import Asked
from app.auth import principal
from app.catalogue import Catalogue
from app.errors import BadRequest
from app.keyring import Keyring
from app.schemas.fields import Header, Offers
from hsm import Hsm, TokenUnavailable, UnsupportedAlgorithm

_NAMES: Final = ("kid", "alg", "enc")


def keyring() -> Keyring:
    """Return the keyring of this application."""
    return cast(Keyring, current_app.extensions["keyring"])


def catalogue() -> Catalogue:
    """Return the catalogue of this application."""
    return cast(Catalogue, current_app.extensions["catalogue"])


def token() -> Hsm:
    """Return the token of this application."""
    return cast(Hsm, current_app.extensions["hsm"])


def load(schema: Schema) -> Any:
    """Return the body of the request, checked by ``schema``."""
    environ = request.environ
    if environ.get("HTTP_CONTENT_ENCODING") or not _is_json(environ.get("CONTENT_TYPE", "")):
        raise UnsupportedMediaType
    text = bodies.read()
    g.asked = _asked(text)
    try:
        members = strict_json.loads(text)
    except ValueError:
        raise BadRequest(
            "The body must be one JSON object, strictly (RFC 8259), in UTF-8"
        ) from None
    exchange.name(**{name: members.get(name) for name in _NAMES if name in schema.fields})
    with Context(_offers()), _noting_refused(schema, members):
        loaded = schema.load(members)
    if isinstance(loaded, dict) and isinstance(header := loaded.get("protected"), Header):
        exchange.name(kid=header.kid, alg=header.alg, enc=header.enc)
    return loaded


@contextmanager
def _noting_refused(schema: Schema, members: Mapping[str, Any]) -> Iterator[None]:
    """Note what a protected header names also if it is refused."""
    try:
        yield
    except UnsupportedAlgorithm:
        if "protected" in schema.fields:
            header = strict_json.loads(jose.decode(members["protected"]))
            exchange.name(**{name: header.get(name) for name in _NAMES})
        raise


@lru_cache(maxsize=64)
def _is_json(content_type: str) -> bool:
    mimetype, parameters = parse_options_header(content_type)
    charset = parameters.get("charset", "utf-8").lower()
    return mimetype.lower() == "application/json" and charset == "utf-8"


def load_query(schema: Schema) -> Any:
    """Return the query of the request, checked by ``schema``; of a name twice the first counts."""
    return schema.load(request.args.to_dict())


def asked() -> Asked | None:
    """Return what makes the loaded request one to be answered once, if the client wants that."""
    found: Asked | None = g.get("asked")
    return found


def _asked(body: bytes) -> Asked | None:
    key = request.headers.get("Idempotency-Key")
    return None if key is None else Asked.of(principal(), key, request.path, body)


def _offers() -> Offers:
    """Return what the token offers; nothing is known while it is away."""
    try:
        return token().offers()
    except TokenUnavailable:
        return {}
