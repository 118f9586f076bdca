"""Where the token is in its life."""

from enum import StrEnum
from typing import NamedTuple

from hsm.errors import Cause


class Phase(StrEnum):
    """The states of the machine that ``connection`` drives."""

    STARTING = "starting"
    READY = "ready"
    UNAVAILABLE = "unavailable"


class State(NamedTuple):
    """A phase; unless it is READY, ``cause`` says why, and ``reason`` tells people.

    ``epoch`` counts the initialisations of this process that ended well.
    """

    phase: Phase
    cause: Cause | None = None
    reason: str = ""
    epoch: int = 0
