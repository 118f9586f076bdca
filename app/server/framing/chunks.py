"""Where a chunked body ends, while it comes (RFC 9112 §7.1)."""

import re
from typing import Final

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]+)[ \t]*[;\r]")
_CRLF: Final = b"\r\n"
_LONGEST_LINE: Final = 8192


class Chunks:
    """Finds the place at which a body can be judged; gunicorn judges it.

    That is its end, or the first thing that is not of its form.
    """

    def __init__(self) -> None:
        self.announced_bytes = 0
        """How long the body is, as far as its chunks have begun."""
        self._line = 0  # where the next line with a size begins
        self._searched = 0

    def is_over(self, held: bytearray) -> bool:
        """Tell whether ``held``, all that has come of the body, can be judged."""
        while (end := held.find(_CRLF, self._line)) >= 0:
            size = _SIZE.match(held, self._line)
            if size is None:
                return True
            size_bytes = int(size[1], 16)
            if size_bytes == 0:
                return self._has_trailers(held, end)
            self.announced_bytes += size_bytes
            self._line = end + size_bytes + 2 * len(_CRLF)
        return len(held) - self._line > _LONGEST_LINE

    def _has_trailers(self, held: bytearray, end: int) -> bool:
        """Tell whether the trailer section, which may be empty, has come after the last chunk."""
        begin = max(end, self._searched)
        self._searched = max(end, len(held) - 3)
        return held.find(2 * _CRLF, begin) >= 0
