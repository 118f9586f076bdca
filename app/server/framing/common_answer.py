"""The headers that are commonly answered, taken at once. All others are gunicorn's to judge.

Of each that is taken here gunicorn makes the same.
"""

from collections.abc import Sequence
from typing import Final

from gunicorn.http import wsgi

_NAMES: Final = frozenset(
    {
        *("Content-Type", "Content-Length", "X-Request-Id", "Server-Timing"),
        *("Retry-After", "WWW-Authenticate", "Cache-Control", "ETag", "Allow"),
    }
)


class Response(wsgi.Response):  # type: ignore[misc]  # gunicorn has no types
    """An answer of which gunicorn looks at each header only if one is odd in any way."""

    def process_headers(self, headers: Sequence[tuple[str, str]]) -> None:
        """Take ``headers``, and the length of the body from them."""
        named = dict(headers)
        values = "".join(named.values())
        is_common = len(named) == len(headers) and named.keys() <= _NAMES
        if not (is_common and values.isascii() and values.isprintable()):
            super().process_headers(headers)
            return
        self.headers = [(name, value.strip()) for name, value in headers]
        if "Content-Length" in named:
            self.response_length = int(named["Content-Length"])
