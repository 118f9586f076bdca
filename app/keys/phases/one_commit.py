"""Keys that the registry keeps: made first, and then there by one commit.

Before it there is nothing to undo: what a token makes for them is gone when they are wrapped.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from app.errors import RegistryUnavailable
from app.keys.phases.making import Making, public_jwk
from app.keys.phases.two_phases import TwoPhases
from app.registry import Registry, State
from hsm import Hsm, HsmError


@dataclass(frozen=True, slots=True, kw_only=True)
class OneCommit:
    """The registry, and the token that makes what it keeps.

    A wrapping key by which one comes in is on the token, and so ends in two ``phases``.
    """

    registry: Registry
    hsm: Hsm
    phases: TwoPhases

    def add(self, making: Making) -> dict[str, Any]:
        """Make keys and add their rows, all or none; return the answer.

        Raises ``UnsupportedAlgorithm`` if the token does not wrap such keys, and ``KeyNotFound`` if
        the wrapping key is gone.
        """
        keys = making.keys
        for key in keys:
            self.hsm.keeping.require(key.spec)
        with self.hsm.together():
            made = list(map(making.make, (key.ref for key in keys)))
        rows = [
            replace(key, state=State.ACTIVE, blob=its.ref.blob, public_jwk=public_jwk(its))
            for key, its in zip(keys, made, strict=True)
        ]
        try:
            are_published = self.registry.insert_all(
                rows,
                making.tagging,
                request=making.request,
                answer=making.answer,
                wrapping=making.wrapping.kid if making.wrapping else None,
            )
        except RegistryUnavailable:  # perhaps it was committed, and only the answer is lost
            with suppress(RegistryUnavailable):
                for key in rows:
                    self.registry.idempotency.forget(key.kid)
                    self.registry.remove(key.kid)
            raise
        if making.wrapping:
            with suppress(HsmError), self.phases.under_way():  # else the janitor will
                self.phases.finish_soon(making.wrapping)
        return dict(making.answer(are_published))
