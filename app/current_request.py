"""The request that this thread answers: its id, what it names, where its time goes."""

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final

import hsm
from app.kid import is_kid
from app.rights import Principal

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,128}", re.ASCII)
_TRACEPARENT: Final = re.compile(
    r"((?P<first>00)|(?!00|ff)[0-9a-f]{2})"
    r"-(?!0{32})(?P<trace_id>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?(first)|(-.*)?)"
)
"""W3C Trace Context §3.2: later versions may go on behind what the first one has."""
_ALGS: Final = frozenset({hsm.DIRECT, *hsm.ALGORITHMS})


class RequestRecord:
    """What is known of one request for logs and metrics.

    What a caller calls a kid or an algorithm is kept only if it can be one: anything else might
    be a secret in the wrong place.
    """

    __slots__ = (
        "alg",
        "change",
        "enc",
        "error",
        "hsm_seconds",
        "kid",
        "kids",
        "new_kid",
        "new_kids",
        "parts",
        "principal",
        "queue_seconds",
        "request_id",
        "started",
        "trace_id",
        "when_audited",
    )

    def __init__(self, request_id: str = "", trace_id: str | None = None) -> None:
        self.started = time.perf_counter()
        self.request_id = request_id or os.urandom(16).hex()
        self.trace_id = trace_id
        self.principal: Principal | None = None
        """Who is calling, once that is known."""
        self.kid: str | None = None
        self.kids: list[str] = []  # of a message that several keys make or verify
        self.new_kid: str | None = None
        self.new_kids: list[str] = []  # of a request for several
        self.change: dict[str, Any] = {}  # what becomes of a key, for the audit log
        self.alg: str | None = None
        self.enc: str | None = None
        self.error: str | None = None
        self.queue_seconds = 0.0
        self.hsm_seconds = 0.0
        self.parts: dict[str, int] | None = None
        """Of a batch: how many were answered by which endpoint with which status."""
        self.when_audited: Callable[[], None] | None = None

    def ids(self) -> dict[str, str]:
        """Return what tells the request, and the trace that it belongs to, from others in a log."""
        trace = {} if self.trace_id is None else {"trace_id": self.trace_id}
        return {"request_id": self.request_id, **trace}

    def part(self) -> "RequestRecord":
        """Return the record of one part of the request."""
        part = RequestRecord(self.request_id, self.trace_id)
        part.principal = self.principal
        return part

    def gather(
        self, answered: Mapping[tuple[str, int], int], parts: Iterable["RequestRecord"]
    ) -> None:
        """Note how many parts were answered how, by endpoint and status, and their times."""
        self.parts = {
            f"{endpoint} {status}": number for (endpoint, status), number in answered.items()
        }
        for part in parts:
            self.queue_seconds += part.queue_seconds
            self.hsm_seconds += part.hsm_seconds

    def name(self, *, kid: Any = None, alg: Any = None, enc: Any = None) -> None:
        """Note what the request names."""
        if isinstance(kid, str) and is_kid(kid):
            self.kid = kid
        if isinstance(alg, str) and alg in _ALGS:
            self.alg = alg
        if isinstance(enc, str) and enc in hsm.CONTENT_ENCRYPTIONS:
            self.enc = enc


_current: Final[ContextVar[RequestRecord | None]] = ContextVar("request", default=None)

current: Final = _current.get
"""Return the record of the request that this thread answers, ``None`` outside of requests."""


def begin(request_id: str = "", traceparent: str = "") -> RequestRecord:
    """Start the record of the request of this thread; an id that is not well-formed is replaced.

    A ``traceparent`` that is not is ignored.
    """
    given = request_id if _REQUEST_ID.fullmatch(request_id) else ""
    record = RequestRecord(given, _trace_of(traceparent) if traceparent else None)
    _current.set(record)
    return record


def _trace_of(traceparent: str) -> str | None:
    found = _TRACEPARENT.fullmatch(traceparent)
    return found["trace_id"] if found else None


def end() -> None:
    """Forget the record of the request of this thread."""
    _current.set(None)


def switch(record: RequestRecord) -> None:
    """Go on with the record of a part of the request, or of the whole again."""
    _current.set(record)


def authenticated_as(principal: Principal) -> None:
    """Note who is calling."""
    if record := _current.get():
        record.principal = principal


def fail(code: str) -> None:
    """Note the error that is answered."""
    if record := _current.get():
        record.error = code


def name(*, kid: Any = None, alg: Any = None, enc: Any = None) -> None:
    """Note what the request names."""
    if record := _current.get():
        record.name(kid=kid, alg=alg, enc=enc)


def name_next(*, kid: str, alg: str) -> None:
    """Note which of several keys is looked at, and no longer the one before."""
    if record := _current.get():
        record.kid = None
        record.name(kid=kid, alg=alg)


def name_several(kids: list[str], alg: str | None) -> None:
    """Note all the keys of one message; as of one alone the first is named, with its ``alg``."""
    if record := _current.get():
        record.kid, record.kids = next(iter(kids), None), kids
        record.alg = None
        record.name(alg=alg)


def change(**members: Any) -> None:
    """Note what the request makes of a key."""
    if record := _current.get():
        record.change = members


def when_audited(act: Callable[[], None]) -> None:
    """Act when the line of the request is written; at once where no request is answered."""
    if record := _current.get():
        record.when_audited = act
    else:
        act()


def made(*kids: Any) -> None:
    """Note the keys that the request made; as of one alone the first is named."""
    if record := _current.get():
        record.new_kids = list(map(str, kids))
        record.new_kid = record.new_kids[0]
