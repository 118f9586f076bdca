"""The PKCS#11 library of the token, initialised so that threads may use it."""

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from pkcs11 import PKCS11Error, Token, _pkcs11

from hsm.errors import Cause, TokenUnavailable

_CKF_OS_LOCKING_OK: Final = 2
_CKR_OK: Final = 0
_UNKNOWN: Final = "unknown"


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


class _Info(ctypes.Structure):
    """CK_INFO."""

    _fields_ = (
        ("cryptokiVersion", ctypes.c_ubyte * 2),
        ("manufacturerID", ctypes.c_char * 32),
        ("flags", ctypes.c_ulong),
        ("libraryDescription", ctypes.c_char * 32),
        ("libraryVersion", ctypes.c_ubyte * 2),
    )


class _FunctionList(ctypes.Structure):
    """The beginning of CK_FUNCTION_LIST."""

    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        ("C_Initialize", _Function),
        ("C_Finalize", _Function),
        ("C_GetInfo", _Function),
    )


class Product(NamedTuple):
    """Who made library and token, and in which versions, as they say themselves."""

    library: str
    library_version: str
    cryptoki_version: str
    token: str
    hardware_version: str
    firmware_version: str


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

    def product(self, token: Token) -> Product:
        """Return what the library says of itself and of ``token``; it must be initialised."""
        info = _Info()
        # p11-kit's client is not initialised through this list, and stays unknown.
        self._functions.C_GetInfo(ctypes.addressof(info))
        return Product(
            library=_words(_text(info.manufacturerID), _text(info.libraryDescription)),
            library_version=_version(info.libraryVersion),
            cryptoki_version=_version(info.cryptokiVersion),
            token=_words(token.manufacturer_id, token.model),
            hardware_version=_version(token.hardware_version),
            firmware_version=_version(token.firmware_version),
        )

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


def _text(padded: bytes) -> str:
    """Return a text of PKCS#11: UTF-8, filled up with spaces."""
    return padded.decode("utf-8", "replace")


def _words(*texts: str) -> str:
    return " ".join(text.strip() for text in texts if text.strip()) or _UNKNOWN


def _version(version: Sequence[int]) -> str:
    """Return a CK_VERSION as people write it; 0.0 is that of who does not say."""
    major, minor = version
    return f"{major}.{minor}" if major or minor else _UNKNOWN


def _function_list(dll: ctypes.CDLL) -> _FunctionList:
    pointer = ctypes.POINTER(_FunctionList)()
    dll.C_GetFunctionList.argtypes = [ctypes.c_void_p]
    if dll.C_GetFunctionList(ctypes.byref(pointer)) != _CKR_OK:
        raise ValueError("no function list")
    return pointer.contents  # NULL is a ValueError too
