"""Making the keys of key sets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID, uuid4

from app.keys.phases.making import public_jwk
from app.keys.phases.two_phases import TwoPhases
from app.registry import Key, KeySet, Origin, Publication, Residency, Tagging
from hsm import KeyRef

Complete = Callable[[KeyRef, Mapping[str, str] | None], None]
"""Called with a key that is on the token, and its public half: makes it a version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionCreation:
    """Makes a key in the token and gives it to a key set, in two phases as any other."""

    phases: TwoPhases
    publication: Publication

    def new_key(self, keyset: KeySet, kid: UUID | None = None) -> Key:
        """Return a key as those of ``keyset`` are, which is not there yet."""
        return Key(
            kid=kid or uuid4(),
            kid_public=uuid4() if keyset.spec.kind.is_pair else None,
            owner=keyset.owner,
            spec=keyset.spec,
            origin=Origin.GENERATED,
            residency=Residency.TOKEN,
            destroy_after=keyset.destroy_after,
        )

    def make(self, key: Key, complete: Complete, *, is_published: bool) -> None:
        """Have the token generate ``key``; undo it if that fails, or ``complete``.

        Raises ``CryptoFailure`` if it is to be published and there is no room.
        """
        publication = self.publication if is_published else None
        tagging = Tagging(publication=publication, is_asked=True)
        self.phases.hsm.offers()  # fail before inserting a row if the token is unavailable
        with self.phases.creation(key, tagging):
            made = self.phases.hsm.generate(key.ref)
            complete(made.ref, public_jwk(made))
