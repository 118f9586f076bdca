"""The listeners of a worker: they are open while there is room, and end when all workers do."""

import errno
import time
from collections.abc import Callable
from contextlib import suppress
from selectors import EVENT_READ, BaseSelector
from socket import socket
from typing import Any, Final

from app.server.host import Host

_SCARCE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_PAUSE_SECONDS: Final = 0.05
_UNNAMED: Final = ""

Admit = Callable[[socket, Any, Any], None]
"""Takes a connection, the address of its client, and the one that he connected to."""


class Reception:
    """Accepts for the worker. ``make_room`` ends a connection, and tells whether there was one."""

    def __init__(
        self,
        worker: Host,
        selector: BaseSelector,
        *,
        admit: Admit,
        make_room: Callable[[], bool],
    ) -> None:
        self._worker = worker
        self._selector = selector
        self._admit = admit
        self._make_room = make_room
        self._is_open = False
        self._connections = 0

    def note(self, connections: int) -> None:
        """Let other workers know how many connections this one has."""
        self._connections = connections
        if self._is_open:
            self._worker.spread.note(self._worker.slot, connections)

    def open_or_close(self) -> None:
        """Accept while there is room, or some can be made; else who comes waits for a moment."""
        limit = self._worker.cfg.worker_connections
        has_room = self._connections < limit or self._make_room()
        if has_room and not self._is_open:
            for listener in self._worker.sockets:
                self._selector.register(listener, EVENT_READ, self._accept)
            self._is_open = True
            self.note(self._connections)
        elif not has_room:
            self._close()

    def end(self) -> None:
        """Accept nobody from now on; if all workers stop those who have connected already.

        If they all listened until the last request is answered, whoever connects meanwhile would
        wait for nothing and then be cut off.
        """
        self._close()
        if self._worker.is_told:
            for listener in self._worker.sockets:
                with suppress(OSError):
                    while True:
                        self._accept_one(listener)
                listener.close()
            self._worker.sockets = []

    def _close(self) -> None:
        if self._is_open:
            for listener in self._worker.sockets:
                self._selector.unregister(listener)
        self._is_open = False
        self._worker.spread.leave(self._worker.slot)

    def _accept(self, listener: Any) -> None:
        if self._worker.spread.is_mine(self._connections, listener):
            try:
                self._accept_one(listener)
            except OSError as error:
                if error.errno in _SCARCE and not self._make_room():
                    time.sleep(_PAUSE_SECONDS)  # the listener stays ready

    def _accept_one(self, listener: Any) -> None:
        channel, client = listener.accept()
        # On a Unix socket it is a name that the client has chosen, if it has one at all.
        is_address = isinstance(client, tuple)
        self._admit(channel, client if is_address else _UNNAMED, listener.getsockname())
