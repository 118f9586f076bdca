"""What a PKCS#11 error means for us: one class for each return value (CKR_*)."""

import re
from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from pkcs11 import exceptions as ckr

from hsm.errors import CryptoFailure, HsmError, TokenUnavailable


class Fault(Enum):
    """Classes of return values that are treated alike."""

    REJECTED = auto()
    """The input is bad; only the operation that got it can tell."""
    AMBIGUOUS = auto()
    """Bad input on some tokens, a broken token on others; a canary decides."""
    KEY_GONE = auto()
    """The handle names no object any more."""
    SESSION_LOST = auto()
    """The session is unusable; another one may do."""
    BUSY = auto()
    """The token lacks a resource right now."""
    DOWN = auto()
    """The token or the library is gone until it is initialised anew."""
    PIN = auto()
    """The PIN was refused. Never to be tried again with the same PIN."""
    POLICY = auto()
    """The token forbids this use of this key."""
    BUG = auto()
    """Anything else: we asked for something that makes no sense."""


REFUSALS: Final = (Fault.POLICY, Fault.BUG, Fault.REJECTED)
"""What a token answers that does not do what was asked, and is well."""

_CLASSES: Final[Mapping[type[ckr.PKCS11Error], Fault]] = MappingProxyType(
    {
        error: fault
        for fault, errors in {
            Fault.REJECTED: (
                ckr.EncryptedDataInvalid,
                ckr.EncryptedDataLenRange,
                ckr.DataInvalid,
                ckr.DataLenRange,
                ckr.WrappedKeyInvalid,
                ckr.WrappedKeyLenRange,
            ),
            # Kryoptic says CKR_DEVICE_ERROR for a bad padding, AWS CloudHSM when it is throttled.
            Fault.AMBIGUOUS: (ckr.GeneralError, ckr.FunctionFailed, ckr.DeviceError),
            Fault.KEY_GONE: (
                ckr.ObjectHandleInvalid,
                ckr.KeyHandleInvalid,
                ckr.UnwrappingKeyHandleInvalid,
                ckr.WrappingKeyHandleInvalid,
            ),
            Fault.SESSION_LOST: (
                ckr.SessionHandleInvalid,
                ckr.SessionClosed,
                ckr.OperationActive,
                ckr.OperationNotInitialized,
                ckr.UserNotLoggedIn,
            ),
            Fault.BUSY: (ckr.SessionCount, ckr.DeviceMemory, ckr.HostMemory),
            Fault.DOWN: (
                ckr.DeviceRemoved,
                ckr.TokenNotPresent,
                ckr.TokenNotRecognised,
                ckr.NoSuchToken,
                ckr.SlotIDInvalid,
                ckr.RandomNoRNG,
                ckr.TokenWriteProtected,
            ),
            Fault.PIN: (
                ckr.PinIncorrect,
                ckr.PinLocked,
                ckr.PinExpired,
                ckr.PinInvalid,
                ckr.PinLenRange,
                ckr.UserPinNotInitialized,
            ),
            Fault.POLICY: (
                ckr.MechanismInvalid,
                ckr.KeyTypeInconsistent,
                ckr.KeySizeRange,
                ckr.KeyNotWrappable,
                ckr.KeyUnextractable,
                ckr.WrappingKeySizeRange,
                ckr.WrappingKeyTypeInconsistent,
                ckr.UnwrappingKeySizeRange,
                ckr.UnwrappingKeyTypeInconsistent,
            ),
        }.items()
        for error in errors
    }
)

# python-pkcs11 has no class for these; it raises PKCS11Error with the number in the text.
_CODES: Final[Mapping[int | None, Fault]] = MappingProxyType(
    {
        0x1B: Fault.POLICY,  # CKR_ACTION_PROHIBITED
        0x42: Fault.REJECTED,  # CKR_AEAD_DECRYPT_FAILED
        0x68: Fault.POLICY,  # CKR_KEY_FUNCTION_NOT_PERMITTED
        0x140: Fault.POLICY,  # CKR_CURVE_NOT_SUPPORTED
        0x201: Fault.BUSY,  # CKR_TOKEN_RESOURCE_EXCEEDED
    }
)
_UNMAPPED: Final = re.compile(r"Unmapped error code 0x([0-9a-f]+)")


def fault_of(error: ckr.PKCS11Error) -> Fault:
    """Classify ``error`` by its return value.

    Values without a class of their own, vendors' among them, count as DOWN: the safe answer is
    "not now", and what follows it is a look at the token.
    """
    if type(error) is not ckr.PKCS11Error:
        return _CLASSES.get(type(error), Fault.BUG)
    return _CODES.get(_number_of(error), Fault.DOWN)


def is_mapped(error: ckr.PKCS11Error) -> bool:
    """Tell whether ``error`` has a class of its own: it is no vendor's value."""
    return type(error) is not ckr.PKCS11Error or _number_of(error) in _CODES


def _number_of(error: ckr.PKCS11Error) -> int | None:
    number = _UNMAPPED.search(str(error))
    return int(number[1], 16) if number else None


def name_of(error: ckr.PKCS11Error) -> str:
    """Return a name for logs: the class, or what python-pkcs11 says of a value without one."""
    number = _number_of(error)
    if number is not None:
        return f"0x{number:x}"
    said = str(error).partition(".")[0] if type(error) is ckr.PKCS11Error else ""
    return said or type(error).__name__


def described(error: ckr.PKCS11Error) -> str:
    """Return the name of ``error`` and of the function that answered it, if that was noted."""
    functions = getattr(error, "__notes__", ())
    return " to ".join((name_of(error), *functions[:1]))


def translate(error: ckr.PKCS11Error) -> HsmError:
    """Return the error of callers for ``error``, unless the operation has a better one."""
    match fault_of(error):
        case Fault.POLICY:
            return CryptoFailure("The token does not permit this operation with this key")
        case Fault.REJECTED | Fault.BUG:
            return HsmError()
        case Fault.BUSY:
            return TokenUnavailable("the token is busy")
        case _:
            return TokenUnavailable("the token does not answer")
