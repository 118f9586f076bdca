"""The login of a process: with a PIN that has been refused it is never tried again."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import Final

from pkcs11 import PKCS11Error, Token, TokenFlag

from hsm.cryptoki.attributes import attribute_mapper
from hsm.cryptoki.faults import Fault, fault_of, name_of
from hsm.cryptoki.module import FunctionList, serial_of
from hsm.cryptoki.pin_latch import PinLatch
from hsm.cryptoki.pool import SessionPool, Watching
from hsm.errors import Cause, TokenUnavailable
from hsm.settings import Settings

logger = logging.getLogger(__name__)

REFUSALS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "PinIncorrect": "the token refuses the PIN",
        "PinLocked": "the token has locked the PIN",
        "PinExpired": "the token wants a new PIN",
        "UserPinNotInitialized": "the token has no user PIN",
    }
)


# "An incorrect user login PIN has been entered at least once since the last successful
# authentication" (PKCS #11, CK_TOKEN_INFO), and what follows from that.
_WRONG: Final = frozenset(
    {TokenFlag.USER_PIN_COUNT_LOW, TokenFlag.USER_PIN_FINAL_TRY, TokenFlag.USER_PIN_LOCKED}
)


def log_in(
    token: Token,
    settings: Settings,
    latch: PinLatch,
    functions: FunctionList | None,
    watching: Watching = nullcontext,
) -> SessionPool:
    """Return sessions on ``token``, logged in; the caller holds the boot lock.

    ``functions`` are those of its library, where they can be called beside python-pkcs11. Other
    sessions are opened and closed ``watching``; the caller watches the login.

    Raises ``TokenUnavailable`` with the cause ``pin`` if there is no PIN to try or the token
    refuses it, which ``latch`` remembers for all processes; ``PKCS11Error`` for all else.
    """
    pin, serial = read_pin(settings), serial_of(token, settings.parameters)
    if latch.is_closed(serial, pin, was_wrong=was_wrong(token)):
        raise TokenUnavailable("the PIN was refused and has not changed since", cause=Cause.PIN)
    latch.begin(serial, pin)
    try:
        pool = SessionPool(
            token,
            pin,
            sizes=(settings.sessions, settings.generations),
            wait_seconds=settings.session_wait_seconds,
            attribute_mapper=attribute_mapper(),
            observer=settings.observer,
            functions=functions,
            watching=watching,
        )
    except PKCS11Error as error:
        if fault_of(error) is not Fault.PIN:
            latch.give_up()
            raise
        latch.close()
        reason = REFUSALS.get(name_of(error), REFUSALS["PinIncorrect"])
        raise TokenUnavailable(reason, cause=Cause.PIN) from error
    latch.open()
    return pool


def was_wrong(token: Token) -> bool:
    """Tell whether the token says that the last PIN of its user was a wrong one."""
    return bool(_WRONG & set(token.flags))


def read_pin(settings: Settings) -> str:
    """Return the PIN; raise ``TokenUnavailable`` if there is none to be read."""
    try:
        pin = settings.read_pin()
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("the PIN file cannot be read: %s", type(error).__name__)
        raise TokenUnavailable("the PIN file cannot be read", cause=Cause.PIN) from None
    if not pin:
        raise TokenUnavailable("the PIN is empty", cause=Cause.PIN)
    return pin
