"""Requests to an application in this process, without a network."""

import io
import json as json_module
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote
from wsgiref.util import setup_testing_defaults

from werkzeug.datastructures import Headers
from werkzeug.test import run_wsgi_app


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What came back, whole."""

    status_code: int
    headers: Headers
    content: bytes


def sender(application: Any) -> Callable[..., Response]:
    """Return what sends requests by method and path, as a client on the same host.

    Flask's own client takes a third of the time of all requests.
    """

    def send(
        method: str,
        path: str,
        *,
        json: Any = None,
        data: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        target, _, query = path.partition("?")
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": unquote(target, "latin-1"),
            "QUERY_STRING": query,
            "RAW_URI": path,
            "REMOTE_ADDR": "127.0.0.1",
        }
        for name, value in (headers or {}).items():
            key = name.upper().replace("-", "_")
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        if json is not None:
            data = json_module.dumps(json)
            environ["CONTENT_TYPE"] = "application/json"
        body = data.encode() if isinstance(data, str) else data
        if body is not None:
            environ["CONTENT_LENGTH"] = str(len(body))
        whole: dict[str, Any] = environ | {"wsgi.input": io.BytesIO(body or b"")}
        setup_testing_defaults(whole)
        chunks, status, answered = run_wsgi_app(application, whole, buffered=True)
        return Response(
            status_code=int(status.split(" ", 1)[0]),
            headers=answered,
            content=b"".join(chunks),
        )

    return send
