"""All connections of a worker: one thread reads and writes for all, the others answer.

So a client that is slow, silent or gone never takes a thread from another, and each has a deadline:
for the handshake and the header section, for the whole of a request, for taking the answer.
"""

import logging
import os
import time
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from selectors import EVENT_READ, DefaultSelector
from socket import socket
from typing import Any, Final

from gunicorn.http.errors import ParseException

from app.config import MAX_BODY_BYTES
from app.http.turns import Caller
from app.server import refusals
from app.server.answering import refuse
from app.server.clock import Clock, Deadlines
from app.server.connection import BLOCKED, EVENTS, Connection, Outcome, Step
from app.server.host import Host
from app.server.intake import Intake, Progress
from app.server.listening.reception import Reception
from app.server.threads import Threads
from app.server.turns import Turns

logger = logging.getLogger(__name__)

_TURN_SECONDS: Final = 0.25
_QUIET_TURN_SECONDS: Final = 1.0
"""Where there is no connection: each turn costs, and a signal or a client ends it."""
_FAREWELL_SECONDS: Final = 2.0
"""How long a connection stays open for a client to notice that it ends."""
_GRACE_SECONDS: Final = 1.0
"""How long nobody is ended to make room for another."""
_MOST_UNREAD_BYTES: Final = 32 * MAX_BODY_BYTES
_SMALL_BYTES: Final = 64 * 1024
_MOST_HELD_BYTES: Final = 32 * MAX_BODY_BYTES
"""Of all requests and answers that are not small, together."""
_PIPE_BYTES: Final = 4096
_NEVER: Final = float("inf")


class Connections:
    """Accepts, reads, writes and ends; ``serve`` does it until the worker is to stop."""

    def __init__(self, worker: Host, deadlines: Deadlines, clock: Clock | None = None) -> None:
        self._worker = worker
        self._deadlines = deadlines
        self._clock = clock or Clock()
        self._tls = worker.tls
        self._turns = Turns(worker.cfg.threads)
        self._threads = Threads(
            worker,
            self._turns,
            request_seconds=deadlines.request_seconds,
            is_anybody_waiting=lambda: self._waiting,
            give_back=self._give_back,
        )
        self._waiting: list[Connection] = []  # for a turn
        self._answered: SimpleQueue[Connection] = SimpleQueue()
        self._selector = DefaultSelector()
        self._all: dict[Connection, None] = {}  # in the order of their coming
        cfg = worker.cfg
        self._most_kept: int = cfg.keepalive and cfg.worker_connections - cfg.threads
        self._reception = Reception(
            worker, self._selector, admit=self._admit, make_room=self._make_room
        )
        self._next_look = 0.0

    def serve(self) -> None:
        """Serve until the worker is to stop, then those who are there, to the end."""
        self._selector.register(self._worker.PIPE[0], EVENT_READ, self._take_back)
        while self._worker.alive:
            self._reception.open_or_close()
            self._turn()
        end = time.monotonic() + self._worker.cfg.graceful_timeout
        if self._worker.cfg.workers == 1:
            self._serve_on(end)
        self._reception.end()
        self._hurry()
        while self._all and time.monotonic() < end:
            self._turn()
        for connection in self._all:
            connection.socket.close()  # a thread may have it
        self._threads.end()
        self._selector.close()

    def _serve_on(self, end: float) -> None:
        """Serve who comes until those who are there have left: nobody else does meanwhile."""
        leaving = set(self._all)
        self._hurry()
        while leaving & self._all.keys() and not self._worker.is_told and time.monotonic() < end:
            self._reception.open_or_close()
            self._turn()

    def _turn(self) -> None:
        self._clock.tick()
        for key, _ in self._selector.select(_TURN_SECONDS if self._all else _QUIET_TURN_SECONDS):
            if not isinstance(key.data, Connection):
                key.data(key.fileobj)
            elif key.data in self._all:
                self._do(key.data, key.data.step)
                self._relieve()
        now = self._clock.now
        if now >= self._next_look:
            self._next_look = now + _TURN_SECONDS
            self._worker.beat()
            self._call_next()
            for connection in [each for each in self._all if each.deadline <= now]:
                self._do(connection, connection.overdue)

    def _hurry(self) -> None:
        """Give clients that have sent nothing a moment to do so, unless a thread waits for them."""
        soon = self._clock.now + _FAREWELL_SECONDS
        for connection in self._all:
            if connection.deadline < _NEVER and not connection.intake.has_begun:
                connection.deadline = min(connection.deadline, soon)

    def _admit(self, channel: socket, client: Any, server: Any) -> None:
        intake = Intake(self._worker.cfg, client, 1)
        connection = Connection(channel, client, server, intake, self._clock)
        self._all[connection] = None
        self._reception.note(len(self._all))
        self._do(connection, self._greet)

    def _make_room(self) -> bool:
        """End the oldest connection that has never brought a whole request, if there is one.

        Who came just now is about to send, and of the others is read first what they have sent.
        """
        latest = self._clock.now - _GRACE_SECONDS
        silent = [each for each in self._all if not each.requests and each.began <= latest]
        for connection in silent:
            self._do(connection, connection.step)
            if not connection.requests:
                self._drop(connection)
                return True
        return False

    @property
    def are_many(self) -> bool:
        """Tell whether connections should be used once only, so that others find room."""
        return len(self._all) >= self._most_kept

    # --- What is done with one ---

    def _do(self, connection: Connection, step: Step) -> None:
        """Do a step as far as the socket allows; whatever goes wrong ends this connection only."""
        try:
            step(connection)
        except BLOCKED as blocked:
            self._watch(connection, EVENTS[type(blocked)])
        except ParseException as error:
            self._do(connection, partial(self._refuse, error=error))
        except OSError:  # the client is gone
            self._drop(connection)
        except Exception:
            logger.exception("a connection is given up")
            self._drop(connection)

    def _wait(self, connection: Connection, step: Step, seconds: float, overdue: Step) -> None:
        """Go on with ``step`` when the socket is ready, with ``overdue`` if it is not in time."""
        connection.step, connection.overdue = step, overdue
        connection.deadline = self._clock.now + seconds

    def _watch(self, connection: Connection, event: int) -> None:
        """Be told when the socket is ready for ``event``; for 0 not at all."""
        before, connection.awaited_event = connection.awaited_event, event
        if before == event:
            return
        if not event:
            self._selector.unregister(connection.socket)
        elif before:
            self._selector.modify(connection.socket, event, connection)
        else:
            self._selector.register(connection.socket, event, connection)

    def _drop(self, connection: Connection) -> None:
        if connection in self._all:
            del self._all[connection]
            self._watch(connection, 0)
            connection.close()
            self._reception.note(len(self._all))

    # --- Steps ---

    def _greet(self, connection: Connection) -> None:
        if self._tls is None:
            self._begin(connection)
            return
        self._wait(connection, self._shake_hands, self._deadlines.header_seconds, self._drop)
        connection.secure(self._tls.context())
        self._shake_hands(connection)

    def _shake_hands(self, connection: Connection) -> None:
        connection.shake_hands()
        self._begin(connection)

    def _begin(self, connection: Connection) -> None:
        """Wait for a request, or for the rest of one that has begun."""
        idle_seconds = self._worker.cfg.keepalive if self._worker.alive else _FAREWELL_SECONDS
        self._wait(connection, self._read, idle_seconds, self._drop)
        if connection.intake.has_begun:
            self._limit(connection)
        self._read(connection)

    def _read(self, connection: Connection) -> None:
        intake = connection.intake
        while intake.progress is Progress.UNDER_WAY:
            if data := connection.receive():
                connection.take(data)
                self._limit(connection)
                if not connection.deadline:  # given up
                    return
            elif intake.request is None:
                self._drop(connection)
                return
            else:
                intake.end()
        self._hand_over(connection)

    def _limit(self, connection: Connection) -> None:
        """Give what has begun so long, and no more memory than there is."""
        has_head = connection.intake.request is not None
        limits = self._deadlines
        seconds = limits.request_seconds if has_head else limits.header_seconds
        connection.overdue = self._time_out
        connection.deadline = connection.began + seconds
        self._bound_memory(connection)

    def _hand_over(self, connection: Connection) -> None:
        """Have a thread answer, when it is the caller's turn; nobody else touches it meanwhile."""
        self._watch(connection, 0)
        connection.deadline = _NEVER
        connection.count_request(self._deadlines.request_seconds)
        self._waiting.append(connection)
        self._call_next()

    def _call_next(self) -> None:
        """Have threads answer those whose turn it is, and those who have waited long enough."""
        now, waiting, self._waiting = time.monotonic(), self._waiting, []
        full: set[Caller | None] = set()
        for connection in waiting:
            has_turn = connection.caller not in full and self._turns.take(connection)
            if has_turn or now > connection.patience:
                self._threads.give(connection)
            else:
                full.add(connection.caller)
                self._waiting.append(connection)

    def _give_back(self, connection: Connection) -> None:
        """Go on with it where all others are; a thread has left it."""
        self._answered.put(connection)
        with suppress(BlockingIOError):  # then many are to be taken back already
            os.write(self._worker.PIPE[1], b"1")

    def _take_back(self, pipe: int) -> None:
        with suppress(BlockingIOError):
            os.read(pipe, _PIPE_BYTES)
        while not self._answered.empty():
            connection = self._answered.get()
            if connection.outcome is Outcome.TURN:
                self._waiting.append(connection)
            else:
                self._bound_memory(connection)
                self._do(connection, self._send)
        self._call_next()

    def _send(self, connection: Connection) -> None:
        self._wait(connection, self._send, self._deadlines.request_seconds, self._drop)
        connection.send()
        match connection.outcome:
            case Outcome.NEXT_REQUEST:
                connection.renew(self._worker.cfg)
                self._begin(connection)
            case Outcome.BEGUN:
                self._begin(connection)
            case Outcome.BODY:
                self._go_on(connection)
            case Outcome.END:
                self._take_leave(connection)

    def _go_on(self, connection: Connection) -> None:
        """Read the body, now that the client knows that it is wanted."""
        connection.intake.go_on()
        connection.step, connection.overdue = self._read, self._time_out
        connection.deadline = connection.began + self._deadlines.request_seconds
        self._read(connection)

    def _take_leave(self, connection: Connection) -> None:
        """Send nothing more; read on, within reason, for who is still sending sees no answer."""
        connection.end_sending()
        connection.intake = Intake(self._worker.cfg, connection.client, 0)
        connection.began = self._clock.now
        connection.unread_bytes = 0
        self._wait(connection, self._discard, _FAREWELL_SECONDS, self._drop)
        self._watch(connection, EVENT_READ)

    def _discard(self, connection: Connection) -> None:
        data = connection.receive()
        connection.unread_bytes += len(data)
        connection.deadline = self._clock.now + _FAREWELL_SECONDS
        is_late = connection.deadline > connection.began + self._deadlines.request_seconds
        if not data or is_late or connection.unread_bytes > _MOST_UNREAD_BYTES:
            self._drop(connection)

    # --- Those who are refused ---

    def _refuse(self, connection: Connection, error: Exception) -> None:
        refuse(self._worker, connection, error)
        self._do(connection, self._send)

    def _time_out(self, connection: Connection) -> None:
        self._say(connection, refusals.timed_out())

    def _say(self, connection: Connection, answer: bytes) -> None:
        connection.outgoing, connection.outcome = memoryview(answer), Outcome.END
        self._do(connection, self._send)

    def _bound_memory(self, connection: Connection) -> None:
        """End what no thread has and has taken longest, while all that is large takes too much."""
        if connection.held_bytes <= _SMALL_BYTES:
            return
        large = [each for each in self._all if each.held_bytes > _SMALL_BYTES and each.deadline]
        excess_bytes = sum(each.held_bytes for each in large) - _MOST_HELD_BYTES
        waiting = dict.fromkeys(self._waiting)
        for each in sorted(large, key=lambda each: each.began):
            if excess_bytes > 0 and (each.deadline < _NEVER or each in waiting):
                waiting.pop(each, None)
                excess_bytes -= each.held_bytes
                each.deadline, each.overdue = 0.0, self._give_up
                self._next_look = 0.0
        self._waiting = list(waiting)

    def _relieve(self) -> None:
        """Free the memory of those that are given up, before more is read of others."""
        if not self._next_look:
            for connection in [each for each in self._all if not each.deadline]:
                self._do(connection, connection.overdue)

    def _give_up(self, connection: Connection) -> None:
        if connection.outgoing:
            self._drop(connection)
        else:
            self._say(connection, refusals.overloaded())
