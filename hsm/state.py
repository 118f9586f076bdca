"""Where the token is in its life."""

from enum import StrEnum
from typing import NamedTuple


class Phase(StrEnum):
    """The states of the machine that ``connection`` drives."""

    STARTING = "starting"
    READY = "ready"
    UNAVAILABLE = "unavailable"


class State(NamedTuple):
    """A phase; unless it is READY, ``cause`` is a word for programs and ``reason`` for people.

    ``epoch`` counts the initialisations of this process that ended well.
    """

    phase: Phase
    cause: str = ""
    reason: str = ""
    epoch: int = 0
