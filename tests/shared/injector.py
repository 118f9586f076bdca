"""Faults on demand: replaces entries of a PKCS#11 module's function list, for tests only.

python-pkcs11 takes each function from the list at each call, so an entry that is replaced here is
the one it calls, in every thread. C_Initialize and C_Finalize, which ``hsm.cryptoki.module`` calls
by their symbols, go past it.
"""

import ctypes
import mmap
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

OK = 0x00
GENERAL_ERROR = 0x05
FUNCTION_FAILED = 0x06
DEVICE_ERROR = 0x30
DEVICE_REMOVED = 0x32
MECHANISM_INVALID = 0x70
MECHANISM_PARAM_INVALID = 0x71
OPERATION_ACTIVE = 0x90
SESSION_CLOSED = 0xB0
SESSION_COUNT = 0xB1
SESSION_HANDLE_INVALID = 0xB3
USER_NOT_LOGGED_IN = 0x101

NAMES: tuple[str, ...] = tuple(
    """
    C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo C_GetTokenInfo
    C_GetMechanismList C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN C_OpenSession
    C_CloseSession C_CloseAllSessions C_GetSessionInfo C_GetOperationState C_SetOperationState
    C_Login C_Logout C_CreateObject C_CopyObject C_DestroyObject C_GetObjectSize
    C_GetAttributeValue C_SetAttributeValue C_FindObjectsInit C_FindObjects C_FindObjectsFinal
    C_EncryptInit C_Encrypt C_EncryptUpdate C_EncryptFinal C_DecryptInit C_Decrypt C_DecryptUpdate
    C_DecryptFinal C_DigestInit C_Digest C_DigestUpdate C_DigestKey C_DigestFinal C_SignInit C_Sign
    C_SignUpdate C_SignFinal C_SignRecoverInit C_SignRecover C_VerifyInit C_Verify C_VerifyUpdate
    C_VerifyFinal C_VerifyRecoverInit C_VerifyRecover C_DigestEncryptUpdate C_DecryptDigestUpdate
    C_SignEncryptUpdate C_DecryptVerifyUpdate C_GenerateKey C_GenerateKeyPair C_WrapKey C_UnwrapKey
    C_DeriveKey C_SeedRandom C_GenerateRandom
    """.split()  # noqa: SIM905  # as in the standard, and readable
)

# No function takes more than eight words; those that take fewer do not look at the rest.
_WORDS = 8
_Function = ctypes.CFUNCTYPE(ctypes.c_ulong, *repeat(ctypes.c_size_t, _WORDS))
_WORD_BYTES = ctypes.sizeof(ctypes.c_void_p)

# The library keeps only their addresses, and another thread may be in one that is put back.
_KEPT: list[Any] = []

Replacement = Callable[..., int]


class Injector:
    """The function list of the module at ``path``. ``calls`` counts those to replaced entries."""

    def __init__(self, path: Any) -> None:
        library = ctypes.CDLL(str(path))
        functions = ctypes.c_void_p()
        assert library.C_GetFunctionList(ctypes.byref(functions)) == OK
        assert functions.value
        self._first = functions.value + _WORD_BYTES  # CK_VERSION comes first, padded to a word
        _make_writable(self._first, _WORD_BYTES * len(NAMES))
        self._originals: dict[str, int] = {}
        self.calls: Counter[str] = Counter()

    def replace(self, name: str, replacement: Replacement) -> None:
        """Call ``replacement(original, *words)`` in place of ``name``."""
        slot = self._slot(name)
        address = self._originals.setdefault(name, slot.value or 0)
        original = _Function(address)

        def call(*words: int) -> int:
            self.calls[name] += 1
            return replacement(original, *words)

        function = _Function(call)
        _KEPT.append(function)
        slot.value = ctypes.cast(function, ctypes.c_void_p).value

    def function(self, name: str) -> Callable[..., int]:
        """Return the module's own ``name``, for a replacement that needs another function too."""
        function = _Function(self._originals.get(name) or self._slot(name).value or 0)
        return lambda *words: int(function(*words, *repeat(0, _WORDS - len(words))))

    def replace_own(self, name: str, replacement: Replacement) -> None:
        """Replace ``name`` for this thread: the one that looks after the token makes keys, too."""
        own = threading.get_ident()

        def call(original: Any, *words: int) -> int:
            if threading.get_ident() == own:
                return replacement(original, *words)
            return int(original(*words))

        self.replace(name, call)

    def count(self, *names: str) -> None:
        """Count calls to ``names``, and let them do what they do."""
        for name in names:
            self.replace(name, lambda original, *words: original(*words))

    def count_own(self, *names: str) -> Counter[str]:
        """Count calls of this thread alone to ``names``: the canary has a thread of its own."""
        calls: Counter[str] = Counter()

        def count(name: str, original: Any, *words: int) -> int:
            calls[name] += 1
            return int(original(*words))

        for name in names:
            self.replace_own(name, partial(count, name))
        return calls

    def fail(self, name: str, value: int, *, times: float = float("inf")) -> None:
        """Let ``name`` answer ``value`` without doing anything, ``times`` times."""
        self.replace(name, _refusing(value, times))

    def fail_own(self, name: str, value: int, *, times: float = float("inf")) -> None:
        """Let it do so for this thread: the canary must not take the fault that is meant for us."""
        self.replace_own(name, _refusing(value, times))

    def spoil(self, name: str, value: int) -> None:
        """Let C_Encrypt, C_Decrypt or C_Sign end its operation as always, and answer ``value``.

        Calls that only ask for the length of the output, which end nothing, are let through.
        """
        self.replace(name, _spoiling(value))

    def spoil_own(self, name: str, value: int, *, times: float) -> None:
        """Let it do so for this thread, ``times`` times."""
        self.replace_own(name, _spoiling(value, times))

    def fail_all(self, value: int) -> None:
        """Let every function of the list answer ``value``."""
        for name in NAMES:
            self.fail(name, value)

    def find_nothing(self) -> None:
        """Let every search end well and empty, as SoftHSM does without file descriptors."""

        def find(
            _original: Any, _session: int, _handles: int, _size: int, count: int, *_: int
        ) -> int:
            ctypes.c_ulong.from_address(count).value = 0
            return OK

        self.replace("C_FindObjects", find)

    def heal(self) -> None:
        """Put every original back."""
        for name, address in self._originals.items():
            self._slot(name).value = address
        self._originals.clear()

    def _slot(self, name: str) -> ctypes.c_void_p:
        return ctypes.c_void_p.from_address(self._first + _WORD_BYTES * NAMES.index(name))


def _make_writable(address: int, size: int) -> None:
    """Let these bytes be changed: a library in Rust, as Kryoptic is, has constants there."""
    begin = address - address % mmap.PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    if libc.mprotect(ctypes.c_void_p(begin), ctypes.c_size_t(address + size - begin), protection):
        raise OSError(ctypes.get_errno(), "mprotect")


def _refusing(value: int, times: float) -> Replacement:
    left = [times]

    def refuse(original: Any, *words: int) -> int:
        left[0] -= 1
        return value if left[0] >= 0 else int(original(*words))

    return refuse


def _spoiling(value: int, times: float = float("inf")) -> Replacement:
    left = [times]

    def spoil(original: Any, *words: int) -> int:
        answer = int(original(*words))
        asks_length = not words[3]
        if asks_length:
            return answer
        left[0] -= 1
        return value if left[0] >= 0 else answer

    return spoil
