"""Which keys can be kept wrapped on one token, and why not others."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from types import MappingProxyType
from typing import Final, NamedTuple
from uuid import UUID

from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import KINDS
from hsm.errors import UnsupportedAlgorithm
from hsm.importing.imports import Target, target_of
from hsm.storage.wrapped_store import NO_KEK, SUBJECT

_NOT_TRIED: Final = "no such key has been tried"


class Refused(NamedTuple):
    """A kind of key that a token does not wrap, and why."""

    kty: str
    crv: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepable:
    """Why keys of each kind cannot be kept wrapped, ``None`` for those that can.

    Without a key-encryption key nothing has been tried. ``kek`` is that of new keys.
    """

    kek: UUID | None = None
    refusals: Mapping[Target, str | None] = field(default_factory=lambda: MappingProxyType({}))

    def refusal(self, spec: KeySpec) -> str | None:
        """Return why no such key can be kept wrapped, or ``None`` if it can."""
        if self.kek is None:
            return NO_KEK
        targets = [(part.kind.name, spec.crv) for part in spec.algorithms[0].parts]
        its = [target_of(spec)] if len(targets) == 1 else targets
        reasons = [self.refusals.get(target, _NOT_TRIED) for target in its]
        return next(filter(None, reasons), None)

    def refused(self) -> Iterator[Refused]:
        """Give each kind of key that cannot be kept wrapped."""
        for kind, (target, reason) in product(KINDS, self.refusals.items()):
            if reason is not None and target[0] == kind.name:
                yield Refused(kty=kind.ktys[0], crv=target[1], reason=reason)

    def require(self, spec: KeySpec) -> None:
        """Raise ``UnsupportedAlgorithm`` if such keys cannot be kept wrapped."""
        reason = self.refusal(spec)
        if reason is not None:
            raise UnsupportedAlgorithm.not_offered(SUBJECT, reason)


NOTHING_KEPT: Final = Keepable()
"""What is known before it has been tried."""
