"""Waiting for what comes, and how soon that is promised.

No test depends on a quick machine: it waits for conditions, with patience. How soon they come is a
claim of its own, which ``make faults`` makes on a machine that does nothing else (``--promised``).
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

PATIENCE_SECONDS: Final = 300.0
"""After so long something hangs, however busy the machine is."""

HELD: Final = "PROMISES_ARE_HELD"
"""The variable of the environment by which processes of tests know of ``--promised``."""

_PAUSE_SECONDS: Final = 0.02

Value = TypeVar("Value")


def are_promises_held() -> bool:
    """Tell whether tests hold the service to its seconds."""
    return HELD in os.environ


@dataclass(frozen=True)
class Promise:
    """What comes to pass, and in how many seconds at most."""

    what: str
    promised_seconds: float

    @property
    def seconds(self) -> float:
        """How long a test waits: that, or with patience."""
        return self.promised_seconds if are_promises_held() else PATIENCE_SECONDS


REFUSAL: Final = Promise("without its token the service says 503", 2)
RECOVERY: Final = Promise("a token that is back is used again, without a restart", 10)
GIVEN_UP: Final = Promise("a call that hangs is given up, and who waits for it answered", 15)
REPLACEMENT: Final = Promise("a worker that was of use is replaced", 5)
START: Final = Promise("a service starts, or what failed again and again is tried again", 60)
STOP: Final = Promise("a service stops when its requests are answered", 30)
LIFE: Final = Promise("a process says that it lives, whatever befalls its token", 5)
STATE: Final = Promise("the state and the figures are told, whatever befalls the token", 10)
ANSWER: Final = Promise("an operation is answered", 30)
LONGEST_ANSWER: Final = Promise("so is the making of a key, whichever it is", 60)
OUTAGE: Final = Promise("who asks a registry that hangs is not made to wait behind others", 15)
ROW_LOCK: Final = Promise("a row of the registry that is locked is 503", 10)
RECONCILIATION: Final = Promise("reconcile has its turn while keys are made", 5)
COMMAND: Final = Promise("a command ends", 120)
CHANGE: Final = Promise("what has begun is done: counted, noted, replaced", 20)


def wait_of_a_batch(lane_seconds: float) -> Promise:
    """A batch waits once for a lane that is taken, and not for each of its keys."""
    return Promise("a batch waits once for its lane", 4 * lane_seconds)


def until(
    condition: Callable[[], Value | None],
    *,
    within: Promise = CHANGE,
    pause_seconds: float = _PAUSE_SECONDS,
) -> Value:
    """Return what ``condition`` gives as soon as that is true; it is asked after each pause."""
    deadline = time.monotonic() + within.seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within.seconds} s: {within.what}"
        time.sleep(pause_seconds)
    return value
