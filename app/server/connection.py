"""One connection of a client. At each moment one thread has it, and none waits long for it."""

import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from selectors import EVENT_READ, EVENT_WRITE
from types import MappingProxyType
from typing import Any, Final, cast

from app.http.turns import Caller
from app.server.clock import Clock
from app.server.environ import Environ
from app.server.intake import Intake

Step = Callable[["Connection"], None]

_PIECE_BYTES: Final = 65_536
# In the kernel, for a moment at most: what costs least, and nobody else waits for it.
_SOON: Final = struct.pack("ll", 0, 5_000)
_AT_ONCE: Final = socket.MSG_DONTWAIT
_NO_FLAGS: Final = 0

BLOCKED: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""Raised where a socket has nothing, or takes nothing, just now; also of one without TLS."""
EVENTS: Final = MappingProxyType(dict(zip(BLOCKED, (EVENT_READ, EVENT_WRITE), strict=True)))
"""What the socket will be ready for when it goes on."""


class Outcome(Enum):
    """What becomes of a connection when ``outgoing`` has been sent."""

    NEXT_REQUEST = auto()
    BEGUN = auto()
    """The next request, of which something may have come already."""
    BODY = auto()
    TURN = auto()
    """Nothing yet: the request is answered later."""
    END = auto()


class Connection:
    """A socket, the request that comes on it, the answer that leaves, and what is done next.

    ``step`` goes on with it when its socket is ready; ``overdue`` is done if it is not by
    ``deadline``. ``began`` is when it came, or its last request; both are seconds of a ``Clock``.
    ``caller`` is whom the request is of, once that is known: one with the header section of the one
    before is of the same. ``patience`` is until when a whole one waits for its turn, in seconds of
    the monotonic clock.
    """

    def __init__(
        self, channel: socket.socket, client: Any, server: Any, intake: Intake, clock: Clock
    ) -> None:
        channel.setblocking(True)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SOON)
        self.socket = channel
        self._flags: int = _AT_ONCE
        self.client = client
        self.server = server
        self.intake = intake
        self.environ: Final = Environ()
        self._clock = clock
        self.outgoing = memoryview(b"")
        self.outcome = Outcome.END
        self.requests = 0
        self.began = clock.now
        self.unread_bytes = 0
        self.caller: Caller | None = None
        self.has_turn = False
        self.patience = 0.0
        self.step: Step
        self.overdue: Step
        self.deadline = float("inf")
        self.awaited_event = 0

    @property
    def held_bytes(self) -> int:
        """How much memory its request and its answer take."""
        return len(self.outgoing) + self.intake.held_bytes

    def count_request(self, patience_seconds: float) -> None:
        """Note that a request has come whole, and how long it may wait for its turn."""
        self.requests += 1
        self.patience = time.monotonic() + patience_seconds

    def take(self, data: bytes) -> None:
        """Take what has come; raise gunicorn's ``ParseException`` for what is no request."""
        if not self.intake.has_begun:
            self.began = self._clock.now
        self.intake.add(data)
        if not self.intake.is_asked_again:  # a proxy sends requests of many on one connection
            self.caller = None

    def renew(self, cfg: Any) -> Intake:
        """Be ready for the next request, whose beginning may have come with the last one."""
        came_already = self.intake.rest()
        self.intake = Intake(cfg, self.client, self.requests + 1, self.intake.request)
        self.outcome = Outcome.BEGUN
        if came_already:
            self.take(came_already)
        return self.intake

    def secure(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on; the handshake is yet to come."""
        self.socket.setblocking(False)
        self._flags = _NO_FLAGS
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def shake_hands(self) -> None:
        """Go on with the handshake; raise one of ``BLOCKED``, or ``OSError``."""
        cast(ssl.SSLSocket, self.socket).do_handshake()

    def receive(self) -> bytes:
        """Return what has come, nothing at the end; raise one of ``BLOCKED``, or ``OSError``."""
        return self._receive(self._flags)

    def receive_soon(self) -> bytes:
        """Do the same, and wait a moment before, if there is no TLS."""
        return self._receive(_NO_FLAGS)

    def _receive(self, flags: int) -> bytes:
        try:
            return self.socket.recv(_PIECE_BYTES, flags)
        except BlockingIOError:
            raise ssl.SSLWantReadError from None

    def send(self) -> None:
        """Send ``outgoing``; raise one of ``BLOCKED`` if some is left, or ``OSError``."""
        while self.outgoing:
            try:
                sent = self.socket.send(self.outgoing, self._flags)
            except BlockingIOError:
                raise ssl.SSLWantWriteError from None
            self.outgoing = self.outgoing[sent:]

    def end_sending(self) -> None:
        """Send nothing more, and say so; raise ``SSLWantWriteError`` or ``OSError``."""
        self._end_tls()
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Be done with the socket, which no thread may have; TLS does not end within an answer."""
        if not self.outgoing:
            with suppress(OSError, ValueError):  # no room for it, or it has been said
                self._end_tls()
        self.socket.close()

    def _end_tls(self) -> None:
        """Tell the client that nothing is cut off (RFC 9112 §9.8), and wait for no answer to that.

        Raises ``SSLWantWriteError``, or ``ValueError`` if TLS has ended already.
        """
        if isinstance(self.socket, ssl.SSLSocket):
            try:
                self.socket.unwrap()
            except ssl.SSLWantWriteError:
                raise
            except OSError:
                pass  # what the client sends instead, or that it has gone
