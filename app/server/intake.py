"""The next request of a connection, as far as it has come: gunicorn judges it, and never waits."""

import io
import re
from contextlib import suppress
from enum import Enum, auto
from types import MappingProxyType
from typing import Any, Final

from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import (
    InvalidHeader,
    NoMoreData,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from werkzeug.exceptions import RequestEntityTooLarge

from app.config import MAX_BODY_BYTES
from app.errors import BadRequest
from app.http.request_body import BodyWanted, Unreadable
from app.server.framing import common_head
from app.server.framing.chunks import Chunks
from app.server.framing.common_head import CommonHead
from app.server.framing.pieces import Pieces

# The end of a header section; after a bare LF, too, gunicorn waits for nothing more.
_END: Final = re.compile(rb"\r\n\r\n|(?<!\r)\n")
_MOST_FRAMED_BYTES: Final = 2 * MAX_BODY_BYTES  # sizes and extensions of the chunks with it
_OF_ONE_REQUEST: Final = MappingProxyType(
    {"body": None, "unreader": None, "must_close": False, "_expected_100_continue": False}
)
_BROKEN: Final = "The body is broken off: fewer bytes came than were announced"


class Progress(Enum):
    """How far the request has come."""

    UNDER_WAY = auto()
    EXPECTING = auto()
    """The client waits for 100 before it sends the body (RFC 9110 §10.1.1)."""
    WHOLE = auto()
    TOO_LARGE = auto()
    BROKEN_OFF = auto()


class _Request(Request):  # type: ignore[misc]  # gunicorn has no types
    """A request as gunicorn parses it; expectations are looked at here.

    Of what ``is_common`` only the framing is left to judge.
    """

    is_common = False
    _head: CommonHead | None = None

    # Nothing is sent by gunicorn, and what is not known is ignored, as RFC 9110 §10.1.1 allows.
    _policy_expect_continue = False

    def _parse_python(self, unreader: Any, buf: bytearray) -> Any:
        data = bytes(buf)
        head = self.head_of(data)
        if head is None:
            return super()._parse_python(unreader, buf)
        self.is_common = True
        self._take(head)
        self.query = self.fragment = ""
        self.version = (1, 1)
        return data[len(head.octets) :]

    def head_of(self, data: bytes) -> CommonHead | None:
        """Return the header section that ``data`` begins with, if it is a common one.

        Clients often send the same again.
        """
        if self._head is not None and self._head.begins(data):
            return self._head
        most_bytes = min(self.limit_request_line or len(data), self.limit_request_field_size)
        head = common_head.read(data, most_bytes=most_bytes, but=self.cfg.secure_scheme_headers)
        return head if head and len(head.fields) <= self.limit_request_fields else None

    def next(self, head: CommonHead) -> "_Request":
        """Return what gunicorn would make of ``head`` on the same connection.

        Of two common requests whose framing says nothing unusual only that differs.
        """
        request = _Request.__new__(_Request)
        request.__dict__.update(vars(self), **_OF_ONE_REQUEST, trailers=[])
        request.req_number = self.req_number + 1
        request._take(head)  # noqa: SLF001  # its own
        return request

    def _take(self, head: CommonHead) -> None:
        self._head = head
        self.method, self.headers = head.method, head.fields
        self.uri = self.path = head.path

    def should_close(self) -> bool:
        """Tell whether the connection ends with this; in HTTP/1.1 it does not by itself."""
        if self._head is not None:
            return self.must_close or self._head.is_last
        return common_head.says_close(self.headers) or bool(super().should_close())


class Intake:
    """Collects one request; bytes may come in any pieces, from whoever has the connection.

    ``last`` is the one before on the same connection.
    """

    def __init__(self, cfg: Any, client: Any, number: int, last: Any = None) -> None:
        self.request: Any = None
        self.number = number
        is_example = last is not None and last.is_common and not last.proxy_protocol_info
        self._example: _Request | None = last if is_example else None
        if last is not None:
            last.body = None  # perhaps large, and read
        self.progress = Progress.UNDER_WAY
        self._cfg = cfg
        self._client = client
        self._held = bytearray()  # of a header section, or of chunks
        self._pieces = Pieces()  # of a body whose length is known, and of what follows it
        self._searched = 0
        self._next_look = 1
        self._body: Any = None  # kept for when the application is asked again
        self._body_bytes = self._read_bytes = 0
        self._chunks: Chunks | None = None
        self._is_expected = False

    @property
    def held_bytes(self) -> int:
        """How much memory it takes, what has been read of it with the rest."""
        return len(self._held) + self._pieces.held_bytes + self._read_bytes

    @property
    def has_begun(self) -> bool:
        """Tell whether anything has come."""
        return self.request is not None or bool(self._held)

    @property
    def is_asked_again(self) -> bool:
        """Tell whether its header section is, byte for byte, that of the one before."""
        before = self._example and self._example.headers
        return self.request is not None and self.request.headers is before

    def add(self, data: bytes) -> None:
        """Take what has come; raise gunicorn's ``ParseException`` for what is no request."""
        if self.request is None:
            self._held += data
            self._look()
        elif self._chunks is None:
            self._pieces.add(data)
        else:
            self._held += data
        if self.request is not None:
            self.progress = self._measured()

    def end(self) -> None:
        """Note that the client sends nothing more."""
        self.progress = Progress.BROKEN_OFF

    def go_on(self) -> None:
        """Wait for the body: the header section did not decide the answer."""
        self._is_expected = False
        self.progress = self._measured()

    def body(self) -> Any:
        """Return what the application reads."""
        match self.progress:
            case Progress.WHOLE:
                self._body = self._body or self._read_body()
                return self._body
            case Progress.EXPECTING:
                return Unreadable(BodyWanted())
            case Progress.TOO_LARGE:
                return Unreadable(RequestEntityTooLarge())
            case _:
                return Unreadable(BadRequest(_BROKEN))

    def rest(self) -> bytes:
        """Return what has come of the next request, once ``body`` was called."""
        if self._chunks is None:
            return self._pieces.take(self._pieces.held_bytes)
        return bytes(self._unreader.take_buffered())

    def _look(self) -> None:
        """Have gunicorn parse the header section when it may be whole, or wrong.

        That is at its end, and as often as what has come doubles: a client that sends one byte at
        a time costs no more than another.
        """
        end = _END.search(self._held, max(0, self._searched - 3))
        self._searched = len(self._held)
        if end is None and len(self._held) < self._next_look:
            return
        self._next_look = 2 * len(self._held)
        data = bytes(self._held)
        if self._example and self._is_like(self._example, data):
            return
        unreader = IterUnreader([data])
        with suppress(NoMoreData):
            request = _Request(self._cfg, unreader, self._client, self.number)
            _require_host(request)
            _require_known_coding(request)
            self._accept(request, unreader)

    def _is_like(self, example: _Request, data: bytes) -> bool:
        """Tell whether ``data`` begins a request of which all but the header section is known."""
        head = example.head_of(data)
        if head is None or "HOST" not in head.names or (size := head.body_bytes) is None:
            return False
        self.request, self._body_bytes = example.next(head), size
        self._held.clear()
        self._pieces.add(data[len(head.octets) :])
        return True

    def _accept(self, request: Any, unreader: Any) -> None:
        self.request, self._reader, self._unreader = request, request.body, unreader
        self._held.clear()
        if isinstance(request.body.reader, ChunkedReader):
            self._chunks = Chunks()
            self._held += unreader.take_buffered()
        else:
            self._body_bytes = request.body.reader.length
            self._pieces.add(unreader.take_buffered())
        self._is_expected = request.version >= (1, 1) and any(
            name == "EXPECT" and value.lower() == "100-continue" for name, value in request.headers
        )

    def _measured(self) -> Progress:
        if self._chunks is None:
            announced = self._body_bytes
            is_over = self._pieces.held_bytes >= announced
        else:
            is_over = self._chunks.is_over(self._held)
            announced = self._chunks.announced_bytes
        is_over_framed = not is_over and len(self._held) > _MOST_FRAMED_BYTES
        if announced > MAX_BODY_BYTES or is_over_framed:
            return Progress.TOO_LARGE
        if is_over:
            return Progress.WHOLE
        is_awaited = self._is_expected and not self.held_bytes
        return Progress.EXPECTING if is_awaited else Progress.UNDER_WAY

    def _read_body(self) -> Any:
        if self._chunks is None:
            self._read_bytes = self._body_bytes
            return io.BytesIO(self._pieces.take(self._body_bytes))
        self._unreader.unread(bytes(self._held))
        self._held.clear()
        try:
            content = self._reader.read()
        except (NoMoreData, ParseException):
            self.progress = Progress.BROKEN_OFF
            return Unreadable(BadRequest(_BROKEN))
        self._read_bytes = len(content)
        return io.BytesIO(content)


def _require_host(request: Any) -> None:
    """Refuse HTTP/1.1 without ``Host`` (RFC 9112 §3.2)."""
    if request.version >= (1, 1) and not any(name == "HOST" for name, _ in request.headers):
        raise InvalidHeader("HOST")


def _require_known_coding(request: Any) -> None:
    """Refuse a body that is compressed: gunicorn takes it, and undoes nothing (RFC 9112 §6.1)."""
    for name, value in request.headers:
        if name == "TRANSFER-ENCODING" and value.strip(" \t").lower() != "chunked":
            raise UnsupportedTransferCoding(value)
