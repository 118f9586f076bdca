"""Who may ask a service without authentication: programs on this machine, and its own pages.

A page of anybody can have its name point to 127.0.0.1 and then ask what a local program could. A
browser says in ``Host`` and ``Origin`` whose page it is, and no page can change that.
"""

from collections.abc import Set
from functools import lru_cache
from urllib.parse import urlsplit

from flask import Flask

from app.auth.asked import asked
from app.errors import ForeignOrigin, MisdirectedRequest
from app.settings import is_loopback


def register(app: Flask, cross_origin: Set[str]) -> None:
    """Answer nobody else; pages of anybody are answered by the endpoints ``cross_origin``."""

    def require_local() -> None:
        """Raise ``MisdirectedRequest`` or ``ForeignOrigin``; programs may send neither header."""
        request = asked()
        environ = request.environ
        host, origin = environ.get("HTTP_HOST"), environ.get("HTTP_ORIGIN")
        if host is not None and not _is_local(f"//{host}"):
            raise MisdirectedRequest
        if origin is not None and not _is_local(origin) and request.endpoint not in cross_origin:
            raise ForeignOrigin

    app.before_request(require_local)


@lru_cache(maxsize=64)
def _is_local(url: str) -> bool:
    try:
        name = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return is_loopback(name) or name.endswith(".localhost")
