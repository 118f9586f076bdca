"""What can be asked and what is answered, for programs (OpenAPI)."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from flask import Response
from flask.typing import ResponseReturnValue

from app.http.endpoint import JSON, Endpoint, Resource
from app.http.request import conditional

resource: Final = Resource("openapi", "These documents.", is_public=True)

_FOLDER: Final = Path(__file__).parents[2]
_MAX_AGE_SECONDS: Final = 60
_PLAIN: Final = Endpoint(
    "GET",
    "/openapi.json",
    answers=("OpenApi",),
    says="An OpenAPI document",
    is_conditional=True,
)


@cache
def _document(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()


def _answer(name: str) -> ResponseReturnValue:
    response = Response(_document(name), mimetype=JSON)
    response.cache_control.public = True
    response.cache_control.max_age = _MAX_AGE_SECONDS
    response.add_etag()
    return conditional(response)


@resource.serves(_PLAIN)
def document() -> ResponseReturnValue:
    """Return the OpenAPI document for generators of clients."""
    return _answer("openapi.json")


@resource.serves(replace(_PLAIN, path="/openapi-strict.json"))
def strict() -> ResponseReturnValue:
    """Return the OpenAPI document that says exactly what is taken and answered."""
    return _answer("openapi-strict.json")
