"""New pairs on curves, of which the point is read and nothing else: see ``bare``."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from pkcs11 import Mechanism

from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import Curve, PublicKey
from hsm.cryptoki.handles import Handle, Key, PublicHandle, PublicObject, temporary
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.material import public_at
from hsm.cryptoki.session import Session
from hsm.operations.session_keys import SessionKeys
from hsm.storage.bare import MAPPER, Bare, Packed


@dataclass(frozen=True, slots=True)
class _Generation:
    """How pairs of one kind are made: what python-pkcs11 packs of its arguments."""

    mechanism: Mechanism
    public: Packed
    private: Packed

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> Self:
        """Return what ``Session.generate_keypair`` makes of these ``arguments``."""
        common = {
            "capabilities": arguments["capabilities"],
            "id_": arguments.get("id"),
            "label": arguments.get("label"),
            "store": arguments.get("store", False),
        }
        public = MAPPER.public_key_template(**common) | arguments["public_template"]
        private = MAPPER.private_key_template(**common) | arguments["private_template"]
        return cls(arguments["mechanism"], Packed(public), Packed(private))


class BarePairs:
    """Makes pairs as ``makes`` does; those that are not on a curve, it makes itself."""

    def __init__(self, makes: SessionKeys) -> None:
        self._makes = makes
        self._generations: dict[KeySpec, _Generation] = {}

    @contextmanager
    def generated(self, session: Session, spec: KeySpec) -> Iterator[Keys]:
        """Generate a pair for one ``with`` block."""
        keys = self._generated(session, spec, spec.curve) if spec.curve else None
        if keys is None:
            with self._makes.generated_pair(session, spec, spec.bits) as keys:
                yield keys
        else:
            with temporary(keys.private), temporary(keys.public):
                yield keys

    def _generated(self, session: Session, spec: KeySpec, curve: Curve) -> Keys | None:
        """Return a new pair, or nothing where python-pkcs11 has to say why there is none."""
        its = self._generation(spec)
        handles = session.generate_handles(
            its.mechanism, public=its.public.place, private=its.private.place
        )
        if handles is None:
            return None
        public, private = handles
        numbers = _numbers(session, public, curve)
        if numbers is None:
            for handle in handles:
                session.destroy_handle(handle)
            return None
        return Keys.pair(
            self._makes.canary,
            PublicObject(session, PublicHandle(public, numbers), Bare(session, public)),
            Key(session, Handle(private), Bare(session, private)),
        )

    def _generation(self, spec: KeySpec) -> _Generation:
        """Return how to make such pairs, which takes a tenth as long as to make one."""
        found = self._generations.get(spec)
        if found is None:
            found = _Generation.of(self._makes.templates.pair_trial(spec))
            self._generations[spec] = found  # of few: there are not many curves
        return found


def _numbers(session: Session, handle: int, curve: Curve) -> PublicKey | None:
    point = session.read_point(handle)
    try:
        return None if point is None else public_at(curve, point)
    except ValueError:
        return None
