"""What the application is told of a request (PEP 3333): by gunicorn, but what stays the same once.

A connection has one client and one server. Of its common requests only the header section differs.
"""

import os
from collections.abc import Mapping
from typing import Any, Final

from gunicorn.http import wsgi

from app.server.framing.common_answer import Response

_OF_ONE_REQUEST: Final = frozenset(
    {
        *("REQUEST_METHOD", "RAW_URI", "PATH_INFO", "wsgi.input", "CONTENT_TYPE", "CONTENT_LENGTH"),
        "wsgi.early_hints",  # writes to the socket, which nobody does here
    }
)
_UNPREFIXED: Final = frozenset({"CONTENT-TYPE", "CONTENT-LENGTH"})


class Environ:
    """The environment of the requests of one connection."""

    def __init__(self) -> None:
        self._same: Mapping[str, Any] | None = None
        self._fields: Any = None
        self._last: Mapping[str, Any] = {}

    def of(self, request: Any, sock: Any, client: Any, server: Any) -> tuple[Any, dict[str, Any]]:
        """Return gunicorn's response to ``request``, and the environment that it makes for it."""
        if request.is_common and self._same is not None:
            return Response(request, sock, request.cfg), self._completed(self._same, request)
        response, environ = wsgi.create(request, sock, client, server, request.cfg)
        if request.is_common and _has_one_place(request, server):
            self._same = _of_all(environ)
        return response, environ

    def _completed(self, same: Mapping[str, Any], request: Any) -> dict[str, Any]:
        """Return the environment of a common request; one header section has one list of fields."""
        if request.headers is not self._fields:
            self._fields, self._last = request.headers, {**same, **_of_head(request)}
        return {**self._last, "wsgi.input": request.body}


def _has_one_place(request: Any, server: Any) -> bool:
    """Tell whether no ``Host``, no prefix of paths and no proxy has a say in where it is."""
    is_address = isinstance(server, tuple)
    return is_address and not os.environ.get("SCRIPT_NAME") and not request.proxy_protocol_info


def _of_all(environ: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        name: value
        for name, value in environ.items()
        if name not in _OF_ONE_REQUEST and not name.startswith("HTTP_")
    }


def _of_head(request: Any) -> dict[str, Any]:
    """Return what the header section of a common request says; its path is not encoded."""
    environ = {
        "REQUEST_METHOD": request.method,
        "RAW_URI": request.uri,
        "PATH_INFO": request.path,
    }
    for name, value in request.headers:
        key = name.replace("-", "_")
        environ[key if name in _UNPREFIXED else f"HTTP_{key}"] = value
    return environ
