"""Whose page asks. A browser says so in headers that no page can change; programs send none.

A page of anybody can have its name point to 127.0.0.1 and then ask what a local program could. So a
service without authentication serves programs on this machine, and its own pages.

A page may also send anybody what has no body, or that of a form; and the browser adds the
certificate of whoever reads the page.
"""

from collections.abc import Set
from functools import lru_cache
from typing import Final
from urllib.parse import SplitResult, urlsplit

from flask import Flask, Request

from app.auth.asked import asked
from app.errors import ForeignOrigin, ForeignPage, MisdirectedRequest
from app.settings import is_loopback

_ADDRESSES: Final = ("HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP")
_OF_SOCKET: Final = "unix:"  # as nginx calls who has come by one


def register(app: Flask, cross_origin: Set[str]) -> None:
    """Answer nobody else; pages of anybody are answered by the endpoints ``cross_origin``."""

    def require_local() -> None:
        """Raise ``MisdirectedRequest`` or ``ForeignOrigin``; programs may send neither header."""
        request = asked()
        environ = request.environ
        host, origin = environ.get("HTTP_HOST"), environ.get("HTTP_ORIGIN")
        if host is not None and not _is_local(f"//{host}"):
            raise MisdirectedRequest
        for name in _ADDRESSES:
            if name in environ and not _is_near(environ[name]):
                raise MisdirectedRequest
        if origin is not None and not _is_local(origin) and request.endpoint not in cross_origin:
            raise ForeignOrigin

    app.before_request(require_local)


def require_own_page() -> None:
    """Raise ``ForeignPage`` if a page of others asks in a way for which it needs nobody's leave.

    That is without a body. Before JSON, or a token, the browser asks whether the page may send it.
    """
    request = asked()
    needs_leave = request.is_json or "Authorization" in request.headers
    if is_own_page(request) is False and not needs_leave:
        raise ForeignPage


def is_own_page(request: Request) -> bool | None:
    """Tell whether a page of this service asks; ``None`` if no browser says whose it is.

    ``Sec-Fetch-Site`` is sent over TLS and on this machine; ``Origin`` with every form.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return site == "same-origin"
    return None if origin is None else origin_of(request).netloc == request.host


def origin_of(request: Request) -> SplitResult:
    """Return whose page the browser says it is; nobody's if that is no address."""
    try:
        return urlsplit(request.headers.get("Origin", ""))
    except ValueError:
        return urlsplit("")


@lru_cache(maxsize=64)
def _is_local(url: str) -> bool:
    try:
        name = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return is_loopback(name) or name.endswith(".localhost")


def _is_near(addresses: str) -> bool:
    """Tell whether all ``addresses``, of a client and of proxies, are of this machine."""
    given = (address.strip() for address in addresses.split(","))
    return all(address == _OF_SOCKET or is_loopback(address.strip("[]")) for address in given)
