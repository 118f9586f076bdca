"""The PKCS#11 library of the token, initialised so that threads may use it."""

import ctypes
from pathlib import Path
from typing import Any

from pkcs11 import Token, _pkcs11

from hsm.errors import TokenUnavailable

_CKF_OS_LOCKING_OK = 2
_CKR_OK = 0


_LIB: Any = _pkcs11.lib  # its stub has no __new__; see ``Module``


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


class Module:
    """A loaded PKCS#11 library.

    python-pkcs11 initialises with C_Initialize(NULL), which promises a single thread, and then
    releases the GIL in every call: two threads are a segmentation fault. So the library is
    initialised here, with CKF_OS_LOCKING_OK, and the wrapper is built around it without its own
    ``__init__``. It is never unloaded: objects that outlive it would call into nothing.
    """

    def __init__(self, path: Path) -> None:
        """Load the library at ``path``; raise ``TokenUnavailable`` if that is impossible."""
        try:
            self._dll = ctypes.CDLL(str(path))
            self._dll.C_Initialize.argtypes = [ctypes.c_void_p]
            self._dll.C_Finalize.argtypes = [ctypes.c_void_p]
        except (OSError, AttributeError):
            raise TokenUnavailable("the PKCS#11 module cannot be loaded") from None
        self._wrapper = _LIB.__new__(_LIB, str(path))

    def initialize(self) -> None:
        """Call C_Initialize; raise ``TokenUnavailable`` unless it succeeds."""
        arguments = _InitializeArgs(flags=_CKF_OS_LOCKING_OK)
        value = self._dll.C_Initialize(ctypes.byref(arguments))
        if value != _CKR_OK:
            raise TokenUnavailable("the PKCS#11 module does not initialise")

    def finalize(self) -> None:
        """Call C_Finalize, whatever it answers. Every handle and session is void afterwards.

        The caller makes sure that no other thread is inside a call.
        """
        self._dll.C_Finalize(None)

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
