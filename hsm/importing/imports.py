"""What is imported wrapped on one token, and how."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from threading import Lock
from types import MappingProxyType
from typing import Final

from hsm.algorithms.keyspec import KeySpec
from hsm.errors import UnsupportedAlgorithm
from hsm.importing.ways import Way
from hsm.waiting import Resting, alone

Target = tuple[str, str | None]
"""Keys that are unwrapped alike: the kind, and the curve if they are on one."""

WRAPPING_ALGS: Final = ("RSA-OAEP-256", "RSA-OAEP")
"""Those of wrapping keys, the best first."""

SUBJECT: Final = "wrapped import"
_NOT_TRIED: Final = "keys of its kind are not imported wrapped"
_NO_OAEP: Final = "the token does not unwrap keys by RSA-OAEP"


def target_of(spec: KeySpec) -> Target:
    """Return what keys of ``spec`` are to who unwraps them."""
    return spec.kind.name, spec.crv


@dataclass(frozen=True, slots=True, kw_only=True)
class Imports:
    """The ways that work, and why there is none for other keys.

    ``alg`` is that of wrapping keys, ``None`` if the token unwraps nothing by RSA-OAEP.
    """

    alg: str | None = None
    ways: Mapping[Target, Way] = field(default_factory=lambda: MappingProxyType({}))
    refusals: Mapping[Target, str] = field(default_factory=lambda: MappingProxyType({}))

    def way(self, spec: KeySpec) -> Way:
        """Return how such keys are unwrapped; raise ``UnsupportedAlgorithm`` if they are not."""
        reason = self.refusal(spec)
        if reason is not None:
            raise UnsupportedAlgorithm.not_offered(SUBJECT, reason)
        return self.ways[target_of(spec)]

    def refusal(self, spec: KeySpec) -> str | None:
        """Return why no such key is imported wrapped, or ``None`` if it is."""
        target = target_of(spec)
        if target in self.ways and len(spec.algorithms[0].parts) == 1:
            return None
        return self.refusals.get(target, _NOT_TRIED) if self.alg else _NO_OAEP

    def wrapping_spec(self, bits: int) -> KeySpec:
        """Return what wrapping keys are; ``UnsupportedAlgorithm`` if nothing can be imported."""
        if self.alg is None:
            raise UnsupportedAlgorithm.not_offered(SUBJECT, _NO_OAEP)
        is_one_step = any(way.is_one_step for way in self.ways.values())
        return KeySpec(kty="RSA", alg=self.alg, bits=bits, unwraps_keys=is_one_step)


class ImportsOfToken:
    """What ``find`` finds of the imports of a token, when somebody asks for the first time.

    To try all kinds takes the processor for 0.3 s, and most services never import a wrapped key.
    Who waits for another thread to find them waits ``resting``.
    """

    def __init__(self, find: Callable[[], Imports], resting: Resting = nullcontext) -> None:
        self._find: Final = find
        self._resting: Final = resting
        self._lock: Final = Lock()
        self.found: Imports | None = None

    def find(self) -> Imports:
        """Return them; what ``find`` raises says nothing of them, and they are tried again."""
        with alone(self._lock, self._resting):
            if self.found is None:
                self.found = self._find()
            return self.found
