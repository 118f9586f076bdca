"""Ways to unwrap a key in the token: one for each mechanism that may do it, tried at the start."""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from pkcs11 import Mechanism, MechanismFlag, Object, ObjectClass

from hsm.algorithms.families import RsaOaep
from hsm.algorithms.kinds import AES
from hsm.cryptoki.attributes import RSA_AES_KEY_WRAP, Templates
from hsm.cryptoki.handles import bind, temporary
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.session import Session
from hsm.operations.cek import mechanism_of, unless_rejected

_AES_BITS: Final = 256
_DATA_SPECIFIED: Final = 1
_KWP_BYTES: Final = 8  # RFC 5649 §4.1


class WrappedKey(NamedTuple):
    """A wrapped key: the AES key for the holder of an RSA key, and the key under that."""

    encrypted_key: bytes
    rest: bytes

    @classmethod
    def of(cls, octets: bytes, modulus_bytes: int) -> "WrappedKey":
        """Return the parts of a key that was wrapped for an RSA key of that length."""
        return cls(octets[:modulus_bytes], octets[modulus_bytes:])

    @property
    def secret_bits(self) -> int:
        """How long a secret key is, rounded up to 64 bits: AES-KWP says no more of it."""
        return 8 * (len(self.rest) - _KWP_BYTES)


class Unwrap(Protocol):
    """Makes an object of the wrapped key, as often as it is called."""

    def __call__(self, **arguments: Any) -> Object:
        """Take what ``Templates.unwrapped`` returns."""


class Way(ABC):
    """One way. ``is_one_step`` says that wrapping keys must permit CKM_RSA_AES_KEY_WRAP."""

    mechanism: Mechanism
    is_one_step: ClassVar[bool] = False

    @abstractmethod
    def opened(
        self, keys: Keys, row: RsaOaep, templates: Templates, wrapped: WrappedKey
    ) -> AbstractContextManager[Unwrap]:
        """Give what unwraps the key for one ``with`` block; ``keys`` are the wrapping key."""


class _OaepParams(ctypes.Structure):
    """CK_RSA_PKCS_OAEP_PARAMS."""

    _fields_ = (
        ("hashAlg", ctypes.c_ulong),
        ("mgf", ctypes.c_ulong),
        ("source", ctypes.c_ulong),
        ("pSourceData", ctypes.c_void_p),
        ("ulSourceDataLen", ctypes.c_ulong),
    )


class _RsaAesParams(ctypes.Structure):
    """CK_RSA_AES_KEY_WRAP_PARAMS."""

    _fields_ = (("ulAESKeyBits", ctypes.c_ulong), ("pOAEPParams", ctypes.c_void_p))


@dataclass(frozen=True, slots=True, kw_only=True)
class OneStep(Way):
    """The token does it all by CKM_RSA_AES_KEY_WRAP."""

    is_one_step = True
    mechanism: Mechanism = RSA_AES_KEY_WRAP

    @contextmanager
    def opened(
        self, keys: Keys, row: RsaOaep, templates: Templates, wrapped: WrappedKey
    ) -> Iterator[Unwrap]:
        """See ``Way``."""
        assert row.param is not None  # noqa: S101  # see ``RsaOaep``
        hash_, mgf, _ = row.param
        oaep = _OaepParams(hash_, mgf, _DATA_SPECIFIED, None, 0)  # kept as long as the block takes
        parameters = bytes(_RsaAesParams(_AES_BITS, ctypes.addressof(oaep)))
        yield partial(
            keys.private.unwrap_key,
            key_data=wrapped.encrypted_key + wrapped.rest,
            mechanism=self.mechanism,
            mechanism_param=parameters,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoSteps(Way):
    """The AES key is unwrapped by RSA-OAEP, and the key under it by AES-KWP (RFC 5649).

    Both stay in the token. ``mechanism`` is one of the two names that AES-KWP has: PKCS#11 v3.0
    has a second one, because v2.40 left open what the first does.
    """

    mechanism: Mechanism

    @contextmanager
    def opened(
        self, keys: Keys, row: RsaOaep, templates: Templates, wrapped: WrappedKey
    ) -> Iterator[Unwrap]:
        """See ``Way``.

        An AES key that cannot be unwrapped is replaced by a random one, and so it fails where a
        wrong one does, after the same steps (RFC 7516 §11.5 has this for a CEK).
        """
        found = unless_rejected(
            lambda: keys.private.unwrap_key(
                ObjectClass.SECRET_KEY,
                AES.key_type,
                wrapped.encrypted_key,
                capabilities=MechanismFlag.UNWRAP,
                template=templates.for_one(self.mechanism),
                **mechanism_of(row),
            )
        )
        made = self._substitute(keys.session, templates) if found is None else found
        with temporary(bind(keys.session, made)) as key:
            yield partial(key.unwrap_key, key_data=wrapped.rest, mechanism=self.mechanism)

    def _substitute(self, session: Session, templates: Templates) -> Object:
        return session.generate_key(
            AES.key_type,
            _AES_BITS,
            capabilities=MechanismFlag.UNWRAP,
            mechanism=AES.generation,
            template=templates.for_one(self.mechanism),
        )
