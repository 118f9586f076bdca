"""What every store of keys does: make a key, lend it, destroy it, say which there are."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol
from uuid import UUID

from hsm.algorithms.kinds import PrivateKey, PublicKey
from hsm.cryptoki.handles import Cek, Key
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.objects import KeyObject
from hsm.cryptoki.session import Session
from hsm.importing.ways import Unwrap
from hsm.messages import KeyRef, Made

Material = PrivateKey | bytes | bytearray
"""A private key, or the value of a secret one."""


class Store(Protocol):
    """The keys of one storage during one epoch."""

    def make(self, session: Session, ref: KeyRef, material: Material | None = None) -> Made:
        """Generate the key ``ref``, or create it from ``material``, which the caller has checked.

        Returns the public half of a pair as it was read back from the token.
        """

    def keep(self, ref: KeyRef, kek: Key, cek: Cek) -> Made:
        """Keep the session objects ``cek`` as the key ``ref``, never extractable again.

        They cross as an AES key wrap (RFC 3394) under ``kek``, which is a session object too.
        """

    def keep_unwrapped(
        self, session: Session, ref: KeyRef, unwrap: Unwrap, public: PublicKey | None
    ) -> Made:
        """Keep what ``unwrap`` unwraps as the key ``ref``; ``public`` is the public half of a pair.

        Whether the halves belong together has been tried.
        """

    def lent(
        self, session: Session, ref: KeyRef, objects: Iterable[KeyObject]
    ) -> AbstractContextManager[Keys]:
        """Lend those objects of ``ref`` to ``session`` for one ``with`` block.

        Raises ``KeyNotFound`` only if the token shows its canary to the same session now: a
        token in trouble finds nothing and says CKR_OK. Else ``TokenUnavailable``.
        """

    def require_destroyable(self, session: Session, ref: KeyRef) -> None:
        """Raise ``CryptoFailure`` if an object of ``ref`` says that nobody may destroy it."""

    def destroy(self, session: Session, ref: KeyRef) -> None:
        """Destroy every object of ``ref``, the private one first; absence is success.

        Absence is believed only of a token that shows its canary. Else ``TokenUnavailable``. An
        object that is still there afterwards is ``FunctionFailed``.
        """

    def inventory(self, session: Session) -> Mapping[UUID, frozenset[KeyObject]]:
        """Return the kids of all keys that are kept here, each with its objects."""
