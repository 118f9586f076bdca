"""One function with one key, again and again: what its calls have in common is made once."""

import ctypes
import time
from collections.abc import Callable
from typing import Any, Final

from pkcs11 import Mechanism

from hsm.cryptoki.module import CKR_OK, FunctionList
from hsm.observer import Observer

Repeatedly = Callable[..., Any]
"""Does what a verb does, with one key and at less cost; ``None`` is the answer of one that cannot.

Then the verb has to do it, and says what is wrong.
"""
Parameters = ctypes.Structure | ctypes.Array[ctypes.c_ulong] | None


class GcmParameters(ctypes.Structure):
    """CK_GCM_PARAMS, of which IV and AAD may be set anew between two calls."""

    _fields_ = (
        ("pIv", ctypes.c_char_p),
        ("ulIvLen", ctypes.c_ulong),
        ("ulIvBits", ctypes.c_ulong),
        ("pAAD", ctypes.c_char_p),
        ("ulAADLen", ctypes.c_ulong),
        ("ulTagBits", ctypes.c_ulong),
    )

    def take(self, iv: bytes, aad: bytes) -> None:
        """Set both."""
        self.pIv, self.ulIvLen, self.ulIvBits = iv, len(iv), 8 * len(iv)
        self.pAAD, self.ulAADLen = aad, len(aad)


class MechanismStructure(ctypes.Structure):
    """CK_MECHANISM."""

    _fields_ = (
        ("mechanism", ctypes.c_ulong),
        ("pParameter", ctypes.c_void_p),
        ("ulParameterLen", ctypes.c_ulong),
    )


class Repeated:
    """C_EncryptInit and C_Encrypt, or those of another ``name``, with one key and mechanism.

    python-pkcs11 makes a mechanism each time, and asks for the length of the output. NSS answers
    that question with a length that has no room for the tag of AES-GCM, and the operation is gone.
    Across a network it is one more way. For one thread, as the session is.
    """

    __slots__ = (
        *("_init", "_perform", "name", "_observer", "_session", "_key", "_parameters"),
        *("_mechanism", "_place", "_output", "_length", "_length_place"),
    )

    def __init__(  # noqa: PLR0913  # what a call needs
        self,
        functions: FunctionList,
        name: str,
        observer: Observer,
        *,
        session: int,
        key: int,
        mechanism: Mechanism,
        parameters: Parameters,
    ) -> None:
        self.name: Final = f"C_{name}"
        self._init = getattr(functions, f"C_{name}Init")
        self._perform = getattr(functions, self.name)
        self._observer = observer
        self._session = session
        self._key = key
        self._parameters = parameters  # for as long as there is a pointer to them
        self._mechanism = MechanismStructure(mechanism)
        if parameters is not None:
            self._mechanism.pParameter = ctypes.addressof(parameters)
            self._mechanism.ulParameterLen = ctypes.sizeof(parameters)
        self._place = ctypes.addressof(self._mechanism)
        self._output = ctypes.create_string_buffer(0)
        self._length = ctypes.c_ulong()
        self._length_place = ctypes.addressof(self._length)

    def __call__(self, data: bytes, *, most_bytes: int) -> bytes | None:
        """Return what the token makes of ``data``, ``most_bytes`` at most.

        Returns ``None`` where python-pkcs11 has to do it or to say why the token refuses.
        """
        if len(self._output) < most_bytes:
            self._output = ctypes.create_string_buffer(most_bytes)
        started = time.perf_counter()
        if self._init(self._session, self._place, self._key) != CKR_OK:
            return None
        self._length.value = most_bytes
        output = self._output
        answer = self._perform(self._session, data, len(data), output, self._length_place)
        if answer != CKR_OK or self._length.value > most_bytes:  # nothing is read behind the buffer
            return None
        self._observer.called(self.name, time.perf_counter() - started, None)
        return ctypes.string_at(output, self._length.value)
