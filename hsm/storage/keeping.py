"""What a caller may ask of keys that are kept wrapped, beside their use."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from hsm.algorithms.keyspec import KeySpec
from hsm.cryptoki.session import Session
from hsm.errors import CryptoFailure
from hsm.life.connection import Connection
from hsm.life.token import Token
from hsm.life.work import Errand
from hsm.messages import Blob, KeyRef
from hsm.storage.keepable import Keepable
from hsm.storage.keks import create_kek, mechanism_on
from hsm.storage.stores import wrapped_store_of
from hsm.storage.transfer import Parcel, packed, unpacked, wrapping_key
from hsm.storage.wrapped_store import NO_KEK


@dataclass(frozen=True, slots=True)
class Keeping:
    """Keys that the registry keeps, encrypted by the token under its key-encryption key.

    Every method raises ``TokenUnavailable`` if the token cannot answer now.
    """

    _connection: Connection

    def require(self, spec: KeySpec) -> None:
        """Raise ``UnsupportedAlgorithm`` if keys of ``spec`` cannot be kept so."""
        self._connection.token.keepable.require(spec)

    def keepable(self) -> Keepable:
        """Return which keys can be kept so, and which key-encryption key new ones are under."""
        return self._connection.token.keepable

    def keks(self) -> frozenset[UUID]:
        """Return which key-encryption keys the token has."""
        return frozenset(wrapped_store_of(self._connection.token.stores).keks)

    def create_kek(self, *, extractable: bool) -> UUID:
        """Make a key-encryption key; those who have the token open find it when they open it anew.

        One that is ``extractable`` can be taken to another token, wrapped. Raises ``CryptoFailure``
        if the token wraps nothing.
        """

        def create(token: Token, session: Session) -> UUID:
            mechanism = mechanism_on(token.pool.listed)
            return create_kek(session, token.templates, mechanism, extractable=extractable)

        return self._connection.perform(Errand(verb=create))

    def resealed(self, ref: KeyRef, row: bytes) -> Blob:
        """Return the blob of ``ref`` with a seal over another ``row``.

        Raises ``BrokenSeal`` if that of now is not right.
        """
        return self._connection.perform(
            Errand(
                verb=lambda token, session: wrapped_store_of(token.stores).resealed(
                    session, ref, row
                )
            )
        )

    def rewrapped(self, ref: KeyRef) -> Blob:
        """Return ``ref`` under the key-encryption key of new keys.

        Raises ``BrokenSeal`` if its seal is not right.
        """
        return self._connection.perform(
            Errand(
                verb=lambda token, session: wrapped_store_of(token.stores).rewrapped(session, ref)
            )
        )

    def prepare_import(self) -> tuple[str, RSAPublicKey]:
        """Make the pair that a key-encryption key of another token is to be wrapped for.

        Returns the algorithm of RSA-OAEP and the public half; a pair made before is destroyed.
        Raises ``UnsupportedAlgorithm`` if the token imports no wrapped key.
        """

        def prepare(token: Token, session: Session) -> tuple[str, RSAPublicKey]:
            ref = wrapping_key(token)
            store = token.stores[ref.storage]
            store.destroy(session, ref)
            return str(ref.spec.alg), cast(RSAPublicKey, store.make(session, ref).public)

        return self._connection.perform(Errand(verb=prepare, takes_seconds=True))

    def export_kek(self, alg: str, public: RSAPublicKey) -> Parcel:
        """Return the key-encryption key of new keys, wrapped for the holder of ``public``.

        Raises ``CryptoFailure`` if there is none, or if the token does not let it go, and
        ``UnsupportedAlgorithm`` if it has no such ``alg`` itself.
        """

        def export(token: Token, session: Session) -> Parcel:
            kek = wrapped_store_of(token.stores).kek
            if kek is None:
                raise CryptoFailure(NO_KEK)
            return packed(token, session, wrapped_store_of(token.stores).keks[kek], alg, public)

        return self._connection.perform(Errand(verb=export))

    def import_kek(self, parcel: Parcel, *, extractable: bool) -> None:
        """Keep the key-encryption key of another token, which was wrapped for the pair made here.

        The pair is gone then. Raises ``WrappedKeyRefused`` if it was wrapped for another one,
        ``KeyNotFound`` if there is no pair, and ``CryptoFailure`` if the token has that key.
        """

        def take(token: Token, session: Session) -> None:
            if parcel.kek in wrapped_store_of(token.stores).keks:
                raise CryptoFailure("The token has that key-encryption key")
            ref = wrapping_key(token)
            unpacked(token, session, ref, parcel, extractable=extractable)
            token.stores[ref.storage].destroy(session, ref)

        self._connection.perform(Errand(verb=take, takes_seconds=True))

    def held(self) -> frozenset[UUID]:
        """Return which keys are unwrapped now in this process."""
        return wrapped_store_of(self._connection.token.stores).held()

    def forget(self, kids: Collection[UUID]) -> None:
        """Wipe what is unwrapped of these keys in this process."""
        self._connection.perform(
            Errand(verb=lambda token, _session: wrapped_store_of(token.stores).forget(kids))
        )
