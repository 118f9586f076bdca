"""Where to begin, for whoever has the address of the service and nothing else."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from flask import jsonify, redirect, request
from flask.typing import ResponseReturnValue

from app.http.endpoint import API, JSON, Endpoint, Resource
from app.http.request import service
from app.observability.kinds import Kind

resource: Final = Resource("index", "Where to begin.", is_public=True)

_HTML: Final = "text/html"
_DOCS: Final = "/docs"
LINKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "api": API,
        "capabilities": f"{API}/capabilities",
        "jwks": "/.well-known/jwks.json",
        "openapi": "/openapi.json",
        "ready": "/health/ready",
    }
)


@resource.serves(Endpoint("GET", "/", answers=("Index",), says="Paths", kind=Kind.WATCH))
def index() -> ResponseReturnValue:
    """Name the paths to begin with.

    A browser, which asks for `text/html` first, is sent to `/docs`.
    """
    has_pages = service().config.pages
    if has_pages and request.accept_mimetypes.best_match((JSON, _HTML)) == _HTML:
        response = redirect(_DOCS)
    else:
        response = jsonify({**LINKS, **({"docs": _DOCS} if has_pages else {})})
    response.vary.add("Accept")
    return response
