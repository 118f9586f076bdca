"""Turns: nobody has all threads, however much he asks at once.

The server hands a function along with each request, if it has turns to give; who is calling is
known here, once the request is authenticated. What serves everybody needs no turn.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from flask import Flask

from app import auth
from app.auth.asked import asked

TURN: Final = "jose_hsm.turn"
"""In the environment of WSGI: a ``TakeTurn``."""


class Caller(NamedTuple):
    """Whose turn it is; long requests have turns of their own, and fewer."""

    principal: str
    is_long: bool


TakeTurn = Callable[[Caller], None]


class TurnAwaited(BaseException):
    """The caller has as many turns as anybody: the request is to be answered later.

    No ``Exception``: no handler of errors may answer it.
    """


def register(app: Flask, long: AbstractSet[str]) -> None:
    """Take a turn for each request of ``app`` that has a principal; ``long`` are endpoints."""

    def take_turn() -> None:
        request, principal = asked(), auth.caller()
        take = request.environ.get(TURN)
        if take is not None and principal is not None:
            take(Caller(str(principal), is_long=request.endpoint in long))

    app.before_request(take_turn)
