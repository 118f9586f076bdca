"""Where a request comes from: what failed attempts are counted by, and what the audit log says."""

import ipaddress
import socket
from typing import Final

from flask import Request

from app.auth.certificates import Proxy

HEADER: Final = "HTTP_X_REAL_IP"
"""``X-Real-IP`` in the environment of WSGI, which costs less to ask than an object of headers."""

_LOCAL: Final = "unix:"  # as nginx calls it


class ClientAddress:
    """Knows the address of a client, also behind a proxy.

    ``HEADER`` is believed of whoever has the secret of the proxy. Where no secret is configured, it
    is believed on a Unix socket, whose directory lets in nobody but the proxy, and never over TCP.
    """

    def __init__(self, proxy: Proxy | None) -> None:
        self._proxy = proxy

    def of(self, request: Request) -> str:
        """Return the IP address; ``unix:`` of a local socket on which nobody says another."""
        told: str = request.environ.get(HEADER, "")
        if told and self._is_believed(request) and _is_address(told):
            return told
        return request.remote_addr or _LOCAL

    def _is_believed(self, request: Request) -> bool:
        return self._proxy.is_it(request) if self._proxy else _is_local(request)


def _is_local(request: Request) -> bool:
    connection = request.environ.get("gunicorn.socket")
    return isinstance(connection, socket.socket) and connection.family == socket.AF_UNIX


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
