"""The PKCS#11 library of the token, initialised so that threads may use it."""

import ctypes
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pkcs11 import PKCS11Error, Token, _pkcs11

from hsm.errors import Cause, TokenUnavailable

_CKF_OS_LOCKING_OK: Final = 2
_CKR_OK: Final = 0


_LIB: Any = _pkcs11.lib  # its stub has no __new__; see ``Module``
_Function: Final = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)


class _InitializeArgs(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS: no mutexes of ours, use those of the operating system."""

    _fields_ = (
        ("CreateMutex", ctypes.c_void_p),
        ("DestroyMutex", ctypes.c_void_p),
        ("LockMutex", ctypes.c_void_p),
        ("UnlockMutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("pReserved", ctypes.c_void_p),
    )


class _FunctionList(ctypes.Structure):
    """The beginning of CK_FUNCTION_LIST."""

    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        ("C_Initialize", _Function),
        ("C_Finalize", _Function),
    )


class Module:
    """A loaded PKCS#11 library.

    python-pkcs11 initialises with C_Initialize(NULL), which promises a single thread, and then
    releases the GIL in every call: two threads are a segmentation fault. So the library is
    initialised here, with CKF_OS_LOCKING_OK, and the wrapper is built around it without its own
    ``__init__``. It is never unloaded: objects that outlive it would call into nothing.

    Some libraries give each caller a function list with a state of its own (p11-kit's client
    does). They are safe for threads however they are initialised, and the wrapper does it.
    """

    def __init__(self, path: Path) -> None:
        """Load the library at ``path``; raise ``TokenUnavailable`` if that is impossible."""
        try:
            dll = ctypes.CDLL(str(path))
            first, second = _function_list(dll), _function_list(dll)
        except (OSError, AttributeError, ValueError):
            raise TokenUnavailable(
                "the PKCS#11 module cannot be loaded", cause=Cause.MODULE
            ) from None
        self._wrapper = _LIB.__new__(_LIB, str(path))
        self._is_shared = ctypes.addressof(first) == ctypes.addressof(second)
        self._functions = first

    def initialize(self) -> None:
        """Call C_Initialize; raise ``TokenUnavailable`` unless it succeeds."""
        if not self._is_shared:
            self._wrapper.initialize()
            return
        arguments = _InitializeArgs(flags=_CKF_OS_LOCKING_OK)
        if self._functions.C_Initialize(ctypes.addressof(arguments)) != _CKR_OK:
            raise TokenUnavailable("the PKCS#11 module does not initialise", cause=Cause.MODULE)

    def finalize(self) -> None:
        """Call C_Finalize, whatever it answers. Every handle and session is void afterwards.

        The caller makes sure that no other thread is inside a call.
        """
        if self._is_shared:
            self._functions.C_Finalize(None)
        else:
            with suppress(PKCS11Error):
                self._wrapper.finalize()

    def find_token(self, *, label: str | None, serial: str | None) -> Token:
        """Return the one token of that label and serial number.

        Raises ``TokenUnavailable`` if there is none, or more than one. Other tokens are passed
        over even when they do not answer.
        """
        found: list[Token] = list(
            self._wrapper.get_tokens(
                token_label=label, token_serial=serial.encode() if serial else None
            )
        )
        if len(found) != 1:
            reason = "more than one token matches" if found else "no token matches"
            raise TokenUnavailable(reason)
        return found[0]


def _function_list(dll: ctypes.CDLL) -> _FunctionList:
    pointer = ctypes.POINTER(_FunctionList)()
    dll.C_GetFunctionList.argtypes = [ctypes.c_void_p]
    if dll.C_GetFunctionList(ctypes.byref(pointer)) != _CKR_OK:
        raise ValueError("no function list")
    return pointer.contents  # NULL is a ValueError too
