"""How many requests of each caller are being answered, in one worker."""

from threading import Lock
from typing import Final

from app.errors import TooManyAtOnce
from app.http.turns import Caller, TurnAwaited
from app.server.connection import Connection

_SHARE: Final = 0.75
_SHARE_OF_BATCHES: Final = 0.125


class Turns:
    """At most three quarters of the threads are for one caller, an eighth for his batches."""

    def __init__(self, threads: int) -> None:
        self._most = {
            is_long: max(1, int(share * threads))
            for is_long, share in ((False, _SHARE), (True, _SHARE_OF_BATCHES))
        }
        self._taken: dict[Caller, int] = {}
        self._lock = Lock()

    def take(self, connection: Connection) -> bool:
        """Take a turn for whom the connection is known to be of; tell whether there was one."""
        caller = connection.caller
        if caller is None or connection.has_turn:
            return True
        with self._lock:
            taken = self._taken.get(caller, 0)
            connection.has_turn = taken < self._most[caller.is_long]
            self._taken[caller] = taken + connection.has_turn
        return connection.has_turn

    def take_as(self, connection: Connection, caller: Caller, *, is_late: bool) -> None:
        """Take one for ``caller``, who is known now, unless that has been done.

        Raises ``TurnAwaited``, or ``TooManyAtOnce`` if the request has waited long enough.
        """
        if connection.caller != caller:
            self.give_back(connection)
            connection.caller = caller
        if not self.take(connection):
            raise TooManyAtOnce if is_late else TurnAwaited

    def give_back(self, connection: Connection) -> None:
        """Let another request have the turn, if there was one."""
        with self._lock:
            if connection.has_turn and connection.caller:
                self._taken[connection.caller] -= 1
                if not self._taken[connection.caller]:
                    del self._taken[connection.caller]
            connection.has_turn = False
