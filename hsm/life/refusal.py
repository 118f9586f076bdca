"""Why a token does not do what is tried on it, told from a token that is in trouble."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from pkcs11 import PKCS11Error

from hsm.cryptoki.faults import Fault, described, fault_of, is_mapped, name_of
from hsm.cryptoki.pool import SessionPool
from hsm.cryptoki.session import Session
from hsm.errors import HsmError, TokenUnavailable

WRONG_RESULT: Final = "the token gives a wrong result"

_TRIES: Final = 3
_TRIES_OVER_SECONDS: Final = 12
_PAUSE_SECONDS: Final = 0.25

_OF_ITSELF: Final = (Fault.AMBIGUOUS, Fault.BUSY, Fault.DOWN, Fault.SESSION_LOST)
"""What a token in trouble answers, and some for what they only lack."""


class Refusal(NamedTuple):
    """Why something is not offered: a ``reason`` for callers, ``details`` for who mends the token.

    The details name the function that failed, too.
    """

    reason: str
    details: str


_WRONG: Final = Refusal(WRONG_RESULT, WRONG_RESULT)


def refusal_of(
    pool: SessionPool, trial: Callable[[Session], object], control: Callable[[Session], bool]
) -> Refusal | None:
    """Return why ``trial`` fails on this token, or ``None`` if it succeeds.

    A token in trouble lacks nothing: a wrong result, or an error of the token itself, is believed
    only of one that gives it for seconds, and a refusal only if ``control`` succeeds after it.
    Values without a meaning, which vendors give for what they lack, need fewer tries. Else
    ``TokenUnavailable`` is raised, or the ``PKCS11Error`` that says so by itself.
    """
    refusal, errors = None, 0
    for _ in range(_TRIES_OVER_SECONDS):
        try:
            with pool.operations.session() as session:
                trial(session)
        except HsmError:
            refusal = _WRONG
            time.sleep(_PAUSE_SECONDS)
        except PKCS11Error as error:
            fault, refusal = fault_of(error), _refusal(error)
            if fault is Fault.PIN:
                raise
            if fault in _OF_ITSELF:
                require_well(pool, control)
                time.sleep(_PAUSE_SECONDS)
            passes = fault in _OF_ITSELF and is_mapped(error)
            if not passes and (errors := errors + 1) == _TRIES:
                break
        else:
            return None
    require_well(pool, control)
    return refusal


def _refusal(error: PKCS11Error) -> Refusal:
    name, details = name_of(error), described(error)
    return Refusal(f"the token answers {name}", f"the token answers {details}")


def require_well(pool: SessionPool, control: Callable[[Session], bool]) -> None:
    """Raise ``TokenUnavailable`` unless ``control`` succeeds."""
    with pool.operations.session() as session:
        if not control(session):
            raise TokenUnavailable("the token does not answer")
