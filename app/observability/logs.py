"""Log records as JSON lines."""

import logging
import re
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any, Final

from app import compact_json, current_request
from app.instants import now
from app.observability.stream import MOST_LINE_BYTES, Stream

_OURS: Final = ("app", "hsm")
_GUNICORN: Final = "gunicorn.error"
_OF_A_REQUEST: Final = re.compile(r"Invalid request from ip=[^\s]*(?=: )|Error handling request")
_MOST_A_SECOND: Final = 100


def line(**members: Any) -> str:
    """Return one JSON object in ASCII, with the present time first (RFC 3339, UTC)."""
    return compact_json.line({"time": now(), **members})


def configure(stream: Stream, level: str) -> None:
    """Send the log of this process to ``stream``: our own from ``level`` on, warnings of others.

    gunicorn's handlers write to stderr, which nobody may be reading: in a worker they go.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, Lines)]:
        root.removeHandler(handler)
    root.addHandler(Lines(stream))
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    gunicorn = logging.getLogger(_GUNICORN)
    gunicorn.handlers.clear()
    gunicorn.propagate = True


def conceal_requests() -> None:
    """Have gunicorn repeat no request that it refuses, wherever its log goes, from now on."""
    logging.getLogger(_GUNICORN).addFilter(_conceal)


def _conceal(record: logging.LogRecord) -> bool:
    """Keep of what gunicorn says of a request not the request: there may be a secret in it."""
    if kept := _OF_A_REQUEST.match(record.getMessage()):
        record.msg, record.args = kept[0], ()
    return True


class Lines(logging.Handler):
    """Puts a record on the stream, as a line that a pipe takes whole."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self._repeats = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        """Put it, unless it only repeats another."""
        if self._repeats.is_one(record):
            return
        members = _members(record) | self._repeats.left_out()
        self._stream.put(_fitting(members), members["level"])


class Repeats:
    """One line per second and message, and not many in all: a storm must not flood the log."""

    def __init__(self) -> None:
        self._second = 0
        self._seen: set[tuple[str, type | None]] = set()
        self._left_out = 0
        self._lock = threading.Lock()

    def is_one(self, record: logging.LogRecord) -> bool:
        """Tell whether ``record`` has been seen in this second; count it then."""
        cause = (record.getMessage(), record.exc_info[0] if record.exc_info else None)
        second = int(time.monotonic())
        with self._lock:
            if second != self._second:
                self._second = second
                self._seen.clear()
            is_many = len(self._seen) >= _MOST_A_SECOND and record.levelno < logging.ERROR
            if cause in self._seen or is_many:
                self._left_out += 1
                return True
            self._seen.add(cause)
            return False

    def left_out(self) -> dict[str, int]:
        """Return how many lines were left out since the last one, if any."""
        with self._lock:
            number, self._left_out = self._left_out, 0
        return {"left_out": number} if number else {}


def _members(record: logging.LogRecord) -> dict[str, Any]:
    members: dict[str, Any] = {
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    if current := current_request.current():
        members |= current.ids()
    if record.exc_info:
        members["traceback"] = "".join(_trace(record.exc_info[1]))
    return members


def _trace(error: BaseException | None) -> Iterator[str]:
    """Give where ``error`` came from, the cause of all first; its text may repeat what it met."""
    if error is None:
        return
    yield from _trace(
        error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    )
    yield from traceback.format_tb(error.__traceback__)
    detail = f": {error.strerror}" if isinstance(error, OSError) else ""
    yield f"{type(error).__module__}.{type(error).__qualname__}{detail}\n"


def _fitting(members: dict[str, Any]) -> str:
    """Return the line; of a text that is too long the end is kept."""
    text = line(**members)
    while len(text) >= MOST_LINE_BYTES:
        longest = max(("message", "traceback"), key=lambda name: len(members.get(name, "")))
        members[longest] = members[longest][len(members[longest]) // 4 + 1 :]
        text = line(**members)
    return text
