"""Keys that the registry keeps, encrypted anew under the newest key-encryption key."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

from app.registry import Key, Registry
from hsm import BrokenSeal, CryptoFailure, Keeping

_BATCH: Final = 100


class Rewrapped(NamedTuple):
    """How many keys are encrypted anew, and the kids of those that could not be.

    Others have changed the rows that are ``broken``, or made nonsense of those ``unreadable``.
    """

    number: int
    broken: list[UUID]
    unreadable: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrapping:
    """Each key in a transaction of its own, so that it can stop anywhere and go on.

    What a service has unwrapped stays as it is. One that is given to another owner meanwhile is as
    that has left it, and so for the next run.
    """

    registry: Registry
    keeping: Keeping

    def run(self, show: Callable[[int], None]) -> Rewrapped:
        """Encrypt all keys.

        Those under key-encryption keys that the token lacks are left alone. Raises
        ``CryptoFailure`` if there is no key-encryption key.
        """
        newest = self.keeping.keepable().kek
        if newest is None:
            raise CryptoFailure("The token has no key-encryption key")
        done, broken, unreadable = 0, list[UUID](), list[str]()
        for kek in self.registry.keks.in_use().keys() & self.keeping.keks() - {newest}:
            after = ""
            while (page := self.registry.keks.under(kek, after=after, limit=_BATCH)).kids:
                after = max(page.kids)
                unreadable += page.unreadable
                for key in page.keys:
                    if self._is_rewrapped(key, broken):
                        done += 1
                show(done)
        return Rewrapped(done, broken, unreadable)

    def _is_rewrapped(self, key: Key, broken: list[UUID]) -> bool:
        try:
            return self.registry.keks.replace(key, self.keeping.rewrapped(key.ref))
        except BrokenSeal:
            broken.append(key.kid)
            return False
