"""The answers that are commonly given, written at once. All others are gunicorn's to write.

Of each that is written here gunicorn would send the same.
"""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from gunicorn import util
from gunicorn.http import wsgi
from werkzeug.http import HTTP_STATUS_CODES

_NAMES: Final = frozenset(
    {
        *("Content-Type", "Content-Length", "X-Request-Id", "Server-Timing"),
        *("Retry-After", "WWW-Authenticate", "Cache-Control", "ETag", "Allow"),
    }
)
_BARE: Final = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_STATUSES: Final[Mapping[str, int]] = {
    f"{code} {name.upper()}": code
    for code, name in HTTP_STATUS_CODES.items()
    if code >= HTTPStatus.OK and code not in _BARE
}
"""As the application writes them, of answers that have a body."""


class Response(wsgi.Response):  # type: ignore[misc]  # gunicorn has no types
    """An answer to HTTP/1.1 which gunicorn looks at only if it is odd in any way."""

    status: str | None
    headers_sent: bool
    _is_common = False

    def start_response(
        self, status: str, headers: Sequence[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """Take ``status`` and ``headers``, and the length of the body from them."""
        code = _STATUSES.get(status) if self.status is None and self.req.is_common else None
        length = _length_of(headers) if code and exc_info is None else None
        if length is None:
            write: Callable[[bytes], None] = super().start_response(status, headers, exc_info)
            return write
        self._is_common = True
        self.status, self.status_code = status, code
        self.headers, self.response_length = headers, length
        return self.write

    def write(self, arg: bytes) -> None:
        """Write a part of the body, and before the first one the header section."""
        if not self._is_common or self.headers_sent or len(arg) != self.response_length:
            super().write(arg)
            return
        self.headers_sent, self.sent = True, len(arg)
        self.sock.sendall(b"%b%b" % (self._head().encode("ascii"), arg))

    def _head(self) -> str:
        connection = "close" if self.should_close() else "keep-alive"
        fields = "".join([f"{name}: {value}\r\n" for name, value in self.headers])
        return (
            f"HTTP/1.1 {self.status}\r\nServer: {self.version}\r\nDate: {util.http_date()}\r\n"
            f"Connection: {connection}\r\n{fields}\r\n"
        )


def _length_of(headers: Sequence[tuple[str, str]]) -> int | None:
    """Return the length that common ``headers`` tell; ``None`` if they tell none, or are odd."""
    named = dict(headers)
    length, values = named.get("Content-Length", ""), " ".join(named.values())
    is_common = len(named) == len(headers) and named.keys() <= _NAMES
    # No value has spaces around it, nor two within, which would look like that here.
    is_trimmed = "  " not in values and values == values.strip()
    if not (is_common and is_trimmed and values.isascii() and values.isprintable()):
        return None
    return int(length) if length.isdigit() else None
