"""Ways to unwrap a key in the token: one for each mechanism that may do it, tried at the start."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from pkcs11 import Mechanism, MechanismFlag, Object, ObjectClass

from hsm.algorithms.families import KeyManagement
from hsm.algorithms.kinds import AES
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.handles import bind, temporary
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.session import Session
from hsm.operations.cek import mechanism_of, unless_rejected

_AES_BITS: Final = 256
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoSteps:
    """The AES key is unwrapped by RSA-OAEP, and the key under it by AES-KWP (RFC 5649).

    Both stay in the token. ``mechanism`` is one of the two names that AES-KWP has: PKCS#11 v3.0
    has a second one, because v2.40 left open what the first does.
    """

    mechanism: Mechanism

    @property
    def name(self) -> str:
        """What the way is called among the proofs."""
        return f"RSA_PKCS_OAEP {self.mechanism.name}"

    @contextmanager
    def opened(
        self, keys: Keys, row: KeyManagement, templates: Templates, wrapped: WrappedKey
    ) -> Iterator[Unwrap]:
        """Give what unwraps the key for one ``with`` block; ``keys`` are the wrapping key.

        An AES key that cannot be unwrapped is replaced by a random one, and so it fails where a
        wrong one does, after the same steps (RFC 7516 §11.5 has this for a CEK).
        """
        found = unless_rejected(
            lambda: keys.private.unwrap_key(
                ObjectClass.SECRET_KEY,
                AES.key_type,
                wrapped.encrypted_key,
                capabilities=MechanismFlag.UNWRAP,
                template=templates.unwrapping(self.mechanism),
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
            template=templates.unwrapping(self.mechanism),
        )
