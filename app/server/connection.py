"""One connection of a client. At each moment one thread has it, and none ever waits for it."""

import socket
import ssl
from collections.abc import Callable
from enum import Enum, auto
from selectors import EVENT_READ, EVENT_WRITE
from types import MappingProxyType
from typing import Any, Final, cast

from app.http.turns import Caller
from app.server.intake import Intake

Step = Callable[["Connection"], None]

_PIECE_BYTES: Final = 65_536

BLOCKED: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""Raised where a socket has nothing, or takes nothing, just now; also of one without TLS."""
EVENTS: Final = MappingProxyType(dict(zip(BLOCKED, (EVENT_READ, EVENT_WRITE), strict=True)))
"""What the socket will be ready for when it goes on."""


class Outcome(Enum):
    """What becomes of a connection when ``outgoing`` has been sent."""

    NEXT_REQUEST = auto()
    BODY = auto()
    TURN = auto()
    """Nothing yet: the request is answered later."""
    END = auto()


class Connection:
    """A socket, the request that comes on it, the answer that leaves, and what is done next.

    ``step`` goes on with it when its socket is ready; ``overdue`` is done if it is not by
    ``deadline``, in seconds of the monotonic clock. ``caller`` is whom the last request was of, and
    ``patience`` until when a whole one waits for its turn.
    """

    def __init__(self, channel: socket.socket, client: Any, server: Any, intake: Intake) -> None:
        channel.setblocking(False)
        self.socket = channel
        self.client = client
        self.server = server
        self.intake = intake
        self.outgoing = memoryview(b"")
        self.outcome = Outcome.END
        self.requests = 0
        self.began = 0.0
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

    def secure(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on; the handshake is yet to come."""
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def shake_hands(self) -> None:
        """Go on with the handshake; raise one of ``BLOCKED``, or ``OSError``."""
        cast(ssl.SSLSocket, self.socket).do_handshake()

    def receive(self) -> bytes:
        """Return what has come, nothing at the end; raise one of ``BLOCKED``, or ``OSError``."""
        try:
            return self.socket.recv(_PIECE_BYTES)
        except BlockingIOError:
            raise ssl.SSLWantReadError from None

    def send(self) -> None:
        """Send ``outgoing``; raise one of ``BLOCKED`` if some is left, or ``OSError``."""
        while self.outgoing:
            try:
                sent = self.socket.send(self.outgoing)
            except BlockingIOError:
                raise ssl.SSLWantWriteError from None
            self.outgoing = self.outgoing[sent:]
