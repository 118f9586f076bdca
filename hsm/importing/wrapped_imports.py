"""Importing wrapped keys, as ``app`` asks for it."""

from typing import Final

from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import PublicKey
from hsm.cryptoki.objects import PRIVATE
from hsm.importing.imports import Imports
from hsm.importing.unwrapping import WrappedImport, keep
from hsm.importing.ways import WrappedKey
from hsm.life.connection import Connection
from hsm.life.work import Errand
from hsm.messages import KeyRef, Made
from hsm.operations.timing import FailureDelay

_BITS: Final = 3072
_TRIAL: Final = Errand(verb=lambda token, _: token.imports.find(), takes_seconds=True)


class WrappedImports:
    """Keys that others have wrapped for a key of the token."""

    def __init__(self, connection: Connection, failure_delay: FailureDelay) -> None:
        self._connection = connection
        self._failure_delay = failure_delay

    def wrapping_spec(self) -> KeySpec:
        """Return what wrapping keys are; ``UnsupportedAlgorithm`` if nothing can be imported."""
        return self._imports().wrapping_spec(_BITS)

    def require(self, spec: KeySpec) -> None:
        """Raise ``UnsupportedAlgorithm`` if the token does not unwrap keys of ``spec``."""
        self._imports().way(spec)

    def refusal(self, spec: KeySpec) -> str | None:
        """Return why the token unwraps no key of ``spec``, or ``None`` if it does."""
        return self._imports().refusal(spec)

    def take(self, wrapping: KeyRef, new: KeyRef, octets: bytes, public: PublicKey | None) -> Made:
        """Keep the key that was wrapped for ``wrapping`` as ``new``, with that public half.

        ``octets`` are the AES key encrypted, as long as the modulus, and AES-KWP of the key
        (PKCS#11 v2.40 §2.1.21). Raises ``WrappedKeyRefused``, one error for every cause, and as
        late.
        """
        bits = wrapping.spec.bits or 0
        wrapped = WrappedKey.of(octets, bits // 8)
        use = WrappedImport(
            ref=wrapping,
            objects=(PRIVATE,),
            name=str(wrapping.spec.alg),
            verb=keep,
            new=new,
            arguments=(wrapped, public),
        )
        with self._failure_delay.of(wrapped.encrypted_key):
            return self._connection.perform(use)

    def _imports(self) -> Imports:
        """Return what the token imports; who asks first waits until it has been tried."""
        return self._connection.token.imports.found or self._connection.perform(_TRIAL)


def secret_bits(wrapping: KeySpec, octets: bytes) -> int:
    """Return how long a secret key is that was wrapped so, rounded up to 64 bits.

    What is no longer than a key at all is 0 or less.
    """
    return WrappedKey.of(octets, (wrapping.bits or 0) // 8).secret_bits
