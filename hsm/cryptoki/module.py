"""The PKCS#11 library of the token, initialised so that threads may use it."""

import ctypes
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from pkcs11 import PKCS11Error, Token, TokenFlag, _pkcs11
from pkcs11.exceptions import TokenNotPresent, TokenNotRecognised

from hsm.errors import Cause, TokenUnavailable

CKR_OK: Final = 0
_CKF_OS_LOCKING_OK: Final = 2
_UNKNOWN: Final = "unknown"
_NO_NUMBER: Final = ctypes.c_ulong(-1).value
"""CK_UNAVAILABLE_INFORMATION; a limit of 0 is none (CK_EFFECTIVELY_INFINITE)."""
_KNOWN_FLAGS: Final = reduce(or_, TokenFlag)


_LIB: Any = _pkcs11.lib  # its stub has no __new__; see ``Module``
_Function: Final = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)
_GetTokenInfo: Final = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p)
_Init: Final = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong)
_Perform: Final = ctypes.CFUNCTYPE(
    *(ctypes.c_ulong, ctypes.c_ulong),
    *(ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p),
)
_DestroyObject: Final = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_GetAttributeValue: Final = ctypes.CFUNCTYPE(
    *(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong),
)
_GenerateKeyPair: Final = ctypes.CFUNCTYPE(
    *(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p),
    *(ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong),
    *(ctypes.c_void_p, ctypes.c_void_p),
)
_WrapKey: Final = ctypes.CFUNCTYPE(
    *(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong),
    *(ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p),
)
_UnwrapKey: Final = ctypes.CFUNCTYPE(
    *(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong),
    *(ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p),
)


class _InitializeArgs(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS: no mutexes of ours, use those of the operating system.

    NSS has pReserved one word later, and parameters where the standard has pReserved.
    """

    _fields_ = (
        ("CreateMutex", ctypes.c_void_p),
        ("DestroyMutex", ctypes.c_void_p),
        ("LockMutex", ctypes.c_void_p),
        ("UnlockMutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("pReserved", ctypes.c_char_p),
        ("pReservedOfNss", ctypes.c_void_p),
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


class FunctionList(ctypes.Structure):
    """The beginning of CK_FUNCTION_LIST, for what python-pkcs11 does not call as we need it."""

    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        ("C_Initialize", _Function),
        ("C_Finalize", _Function),
        ("C_GetInfo", _Function),
        ("C_GetFunctionList", _Function),
        ("C_GetSlotList", _Function),
        ("C_GetSlotInfo", _Function),
        ("C_GetTokenInfo", _GetTokenInfo),
        ("C_GetMechanismList to C_CopyObject", ctypes.c_void_p * 15),
        ("C_DestroyObject", _DestroyObject),
        ("C_GetObjectSize", ctypes.c_void_p),
        ("C_GetAttributeValue", _GetAttributeValue),
        ("C_SetAttributeValue to C_FindObjectsFinal", ctypes.c_void_p * 4),
        ("C_EncryptInit", _Init),
        ("C_Encrypt", _Perform),
        ("C_EncryptUpdate to C_EncryptFinal", ctypes.c_void_p * 2),
        ("C_DecryptInit", _Init),
        ("C_Decrypt", _Perform),
        ("C_DecryptUpdate to C_DigestFinal", ctypes.c_void_p * 7),
        ("C_SignInit", _Init),
        ("C_Sign", _Perform),
        ("C_SignUpdate to C_GenerateKey", ctypes.c_void_p * 15),
        ("C_GenerateKeyPair", _GenerateKeyPair),
        ("C_WrapKey", _WrapKey),
        ("C_UnwrapKey", _UnwrapKey),
    )


class _TokenInfo(ctypes.Structure):
    """CK_TOKEN_INFO."""

    _fields_ = (
        ("label", ctypes.c_char * 32),
        ("manufacturerID", ctypes.c_char * 32),
        ("model", ctypes.c_char * 16),
        ("serialNumber", ctypes.c_char * 16),
        ("flags", ctypes.c_ulong),
        ("ulMaxSessionCount", ctypes.c_ulong),
        ("ulSessionCount", ctypes.c_ulong),
        ("ulMaxRwSessionCount", ctypes.c_ulong),
        ("ulRwSessionCount", ctypes.c_ulong),
        ("ulMaxPinLen", ctypes.c_ulong),
        ("ulMinPinLen", ctypes.c_ulong),
        ("ulTotalPublicMemory", ctypes.c_ulong),
        ("ulFreePublicMemory", ctypes.c_ulong),
        ("ulTotalPrivateMemory", ctypes.c_ulong),
        ("ulFreePrivateMemory", ctypes.c_ulong),
        ("hardwareVersion", ctypes.c_ubyte * 2),
        ("firmwareVersion", ctypes.c_ubyte * 2),
        ("utcTime", ctypes.c_char * 16),
    )


class TokenInfo(NamedTuple):
    """What a token says of itself that python-pkcs11 does not read.

    ``most_sessions`` is ``None`` if it states no limit; ``time`` if it has no clock.
    """

    flags: TokenFlag
    sessions: int
    most_sessions: int | None
    time: datetime | None


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

    def __init__(self, path: Path, parameters: str | None = None) -> None:
        """Load the library at ``path``; raise ``TokenUnavailable`` if that is impossible.

        It is to get ``parameters`` when it is initialised, unless the wrapper does that.
        """
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
        self._parameters = parameters

    def initialize(self) -> None:
        """Call C_Initialize; raise ``TokenUnavailable`` unless it succeeds."""
        if not self._is_shared:
            self._wrapper.initialize()
            return
        parameters = None if self._parameters is None else os.fsencode(self._parameters)
        arguments = _InitializeArgs(flags=_CKF_OS_LOCKING_OK, pReserved=parameters)
        answer = self._functions.C_Initialize(ctypes.addressof(arguments))
        if answer != CKR_OK:
            reason = f"the PKCS#11 module answers {answer:#x} to C_Initialize"
            raise TokenUnavailable(reason, cause=Cause.MODULE)

    @property
    def functions(self) -> FunctionList | None:
        """The functions of the library, for sessions of python-pkcs11, if they are its own too."""
        return self._functions if self._is_shared else None

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

    def places(self, token: Token) -> Mapping[str, str]:
        """Return how a URI says where ``token`` is: its attributes (RFC 7512 §2.3)."""
        info, slot = _Info(), token.slot
        self._functions.C_GetInfo(ctypes.addressof(info))
        texts = {
            "library-manufacturer": _text(info.manufacturerID),
            "library-description": _text(info.libraryDescription),
            "library-version": _version(info.libraryVersion),
            "slot-manufacturer": slot.manufacturer_id,
            "slot-description": slot.slot_description,
            "slot-id": str(slot.slot_id),
            "token": token.label,
            "manufacturer": token.manufacturer_id,
            "model": token.model,
            "serial": token.serial.decode("utf-8", "replace"),
        }
        return MappingProxyType({name: text.rstrip(" ") for name, text in texts.items()})

    def tokens(self) -> list[Token]:
        """Return all tokens that are there, and answer."""
        return self._looked()[0]

    def token_info(self, token: Token) -> TokenInfo:
        """Ask the token for what it says of itself now; raise ``TokenUnavailable``.

        Of a library that keeps a state for each caller, it is what python-pkcs11 has asked when it
        found the token.
        """
        if not self._is_shared:
            return TokenInfo(TokenFlag(token.flags), 0, None, None)
        info = _TokenInfo()
        answer = self._functions.C_GetTokenInfo(token.slot.slot_id, ctypes.addressof(info))
        if answer != CKR_OK:
            raise TokenUnavailable(f"the token answers {answer:#x}")
        most = min(info.ulMaxSessionCount or _NO_NUMBER, info.ulMaxRwSessionCount or _NO_NUMBER)
        flags = TokenFlag(info.flags & _KNOWN_FLAGS)
        return TokenInfo(
            flags=flags,
            sessions=0 if info.ulSessionCount == _NO_NUMBER else info.ulSessionCount,
            most_sessions=None if most == _NO_NUMBER else most,
            time=_instant(info.utcTime) if TokenFlag.CLOCK_ON_TOKEN in flags else None,
        )

    def find_token(self, *, label: str | None, serial: str | None) -> Token:
        """Return the one token of that label and serial number.

        Raises ``TokenUnavailable`` if there is none, or more than one. Other tokens are passed
        over even when they do not answer; ``PKCS11Error`` is raised if one of these may be it.
        """
        tokens, errors = self._looked()
        octets = serial.encode() if serial else None
        found = [
            token
            for token in tokens
            if label in {None, token.label} and octets in {None, token.serial}
        ]
        if errors and not found:
            raise errors[0]
        if len(found) != 1:
            reason = "more than one token matches" if found else "no token matches"
            raise TokenUnavailable(reason)
        return found[0]

    def _looked(self) -> tuple[list[Token], list[PKCS11Error]]:
        """Return all tokens that are there, and what others have answered."""
        tokens, errors = [], []
        for slot in self._wrapper.get_slots():
            try:
                tokens.append(slot.get_token())
            except (TokenNotPresent, TokenNotRecognised):
                continue
            except PKCS11Error as error:
                errors.append(error)
        return tokens, errors


def serial_of(token: Token, parameters: str | None) -> bytes:
    """Return what tells ``token`` from others.

    Some libraries give all their tokens one serial number, zeros or another. So its label and the
    ``parameters`` of its library, which say where it is, go with it.
    """
    return b"\0".join((token.serial, token.label.encode(), os.fsencode(parameters or "")))


def _text(padded: bytes) -> str:
    """Return a text of PKCS#11: UTF-8, filled up with spaces."""
    return padded.decode("utf-8", "replace")


def _words(*texts: str) -> str:
    return " ".join(text.strip() for text in texts if text.strip()) or _UNKNOWN


def _version(version: Sequence[int]) -> str:
    """Return a CK_VERSION as people write it; 0.0 is that of who does not say."""
    major, minor = version
    return f"{major}.{minor}" if major or minor else _UNKNOWN


def _function_list(dll: ctypes.CDLL) -> FunctionList:
    pointer = ctypes.POINTER(FunctionList)()
    dll.C_GetFunctionList.argtypes = [ctypes.c_void_p]
    if dll.C_GetFunctionList(ctypes.byref(pointer)) != CKR_OK:
        raise ValueError("no function list")
    return pointer.contents  # NULL is a ValueError too


def _instant(text: bytes) -> datetime | None:
    """Return the instant that YYYYMMDDhhmmssxx is, if it is one."""
    with suppress(ValueError):
        return datetime.strptime(text[:14].decode("ascii"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    return None
