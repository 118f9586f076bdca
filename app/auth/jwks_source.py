"""Where the JWK set of the issuer is: a file, or a URL that is fetched in time or not at all."""

import socket
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from threading import Thread, Timer
from types import TracebackType
from typing import Any, Final, Self
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

_FETCH_SECONDS: Final = 3.0
_MOST_BYTES: Final = 1024 * 1024


def reader_of(location: str) -> Callable[[], bytes]:
    """Return what reads the set; it raises ``OSError``, ``ValueError`` or ``HTTPException``."""
    return partial(_fetch, location) if _is_url(location) else Path(location).read_bytes


def mark_of(location: str) -> Callable[[], object]:
    """Return what tells, without reading, whether a file has changed; nothing does for a URL."""
    if _is_url(location):
        return lambda: None

    def mark() -> object:
        try:
            found = Path(location).stat()
        except OSError:
            return "away"
        return found.st_mtime_ns, found.st_size, found.st_ino

    return mark


def _is_url(location: str) -> bool:
    return location.lower().startswith(("http://", "https://"))


def _fetch(location: str) -> bytes:
    """Return the set, or raise ``TimeoutError``.

    A look-up of a name cannot be cut: it has a thread of its own, and nobody waits for it longer.
    """
    fetched: Future[bytes] = Future()
    Thread(target=_fetch_into, args=(fetched, location), name="jwks", daemon=True).start()
    try:
        return fetched.result(_FETCH_SECONDS)
    finally:
        del fetched  # an error knows this frame, and would keep itself and its socket


def _fetch_into(fetched: "Future[bytes]", location: str) -> None:
    try:
        fetched.set_result(_fetched(location))
    except Exception as error:  # noqa: BLE001  # who waits is told, whatever it is
        fetched.set_exception(error)
    finally:
        del fetched  # likewise


def _fetched(location: str) -> bytes:
    with _Deadline(_FETCH_SECONDS) as deadline:
        opener = build_opener(_NoRedirects, _Handler(deadline))
        with opener.open(location, timeout=_FETCH_SECONDS) as response:
            content: bytes = response.read(_MOST_BYTES + 1)
    if deadline.is_over:
        raise TimeoutError
    if len(content) > _MOST_BYTES:
        raise ValueError("too long")
    return content


class _Deadline:
    """Cuts a connection once ``seconds`` have passed, however often something still comes.

    A timeout of a socket is one of each read: at a byte a second it never passes.
    """

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._connection: socket.socket | None = None
        self._timer = Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        """Begin."""
        self._timer.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """End: what was in time is not cut."""
        self._timer.cancel()

    def watch(self, connection: socket.socket) -> None:
        """Cut ``connection`` in time; raise ``TimeoutError`` if that is over."""
        self._connection = connection
        if self.is_over:
            raise TimeoutError

    def _end(self) -> None:
        self.is_over = True
        if self._connection:
            with suppress(OSError):  # TLS has a shutdown of its own, under which nobody may read
                socket.socket.shutdown(self._connection, socket.SHUT_RDWR)


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_args: Any) -> None:
        """Follow nothing: the configured URL is the one that is trusted."""


class _Handler(HTTPSHandler, HTTPHandler):
    """Opens connections that end at a deadline."""

    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: Request) -> HTTPResponse:
        """Open a connection to a loopback address."""
        return self.do_open(partial(_Connection, deadline=self._deadline), req)

    def https_open(self, req: Request) -> HTTPResponse:
        """Open a connection with TLS."""
        return self.do_open(partial(_TlsConnection, deadline=self._deadline), req)


class _Connection(HTTPConnection):
    def __init__(self, host: str, *, deadline: _Deadline, **options: Any) -> None:
        super().__init__(host, **options)
        self._deadline = deadline

    def connect(self) -> None:
        super().connect()
        self._deadline.watch(self.sock)


class _TlsConnection(_Connection, HTTPSConnection):
    pass
