"""What can be asked and what is answered, for programs (OpenAPI 3.1)."""

from functools import cache
from pathlib import Path
from typing import Final

from flask import Response, request
from flask.typing import ResponseReturnValue

from app.http.endpoint import JSON, Endpoint, Resource

resource: Final = Resource("openapi", "This document.", is_public=True)

_DOCUMENT: Final = Path(__file__).parents[2] / "openapi.json"
_MAX_AGE_SECONDS: Final = 60


@cache
def _document() -> bytes:
    return _DOCUMENT.read_bytes()


@resource.serves(
    Endpoint(
        "GET",
        "/openapi.json",
        answers=("OpenApi",),
        says="An OpenAPI document",
        is_conditional=True,
    )
)
def document() -> ResponseReturnValue:
    """Return this document."""
    response = Response(_document(), mimetype=JSON)
    response.cache_control.public = True
    response.cache_control.max_age = _MAX_AGE_SECONDS
    response.add_etag()
    return response.make_conditional(request)
