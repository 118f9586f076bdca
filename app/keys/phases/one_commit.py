"""Keys that the registry keeps: made first, and then there by one commit.

Before it there is nothing to undo: what a token makes for them is gone when they are wrapped.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from app.errors import RegistryUnavailable
from app.idempotency import IdempotentRequest
from app.keys.phases.making import Make, public_jwk
from app.registry import Answer, Key, Registry, State, Tagging
from hsm import Hsm


@dataclass(frozen=True, slots=True, kw_only=True)
class OneCommit:
    """The registry, and the token that makes what it keeps."""

    registry: Registry
    hsm: Hsm

    def add(
        self,
        keys: Sequence[Key],
        make: Make,
        tagging: Tagging,
        request: IdempotentRequest | None,
        answer: Answer,
    ) -> dict[str, Any]:
        """Make ``keys`` and add their rows, all or none; return the answer.

        Raises ``UnsupportedAlgorithm`` if the token does not wrap such keys.
        """
        for key in keys:
            self.hsm.keeping.require(key.spec)
        with self.hsm.together():
            made = [make(key.ref) for key in keys]
        rows = [
            replace(key, state=State.ACTIVE, blob=its.ref.blob, public_jwk=public_jwk(its))
            for key, its in zip(keys, made, strict=True)
        ]
        try:
            are_published = self.registry.insert_all(rows, tagging, request=request, answer=answer)
        except RegistryUnavailable:  # perhaps it was committed, and only the answer is lost
            with suppress(RegistryUnavailable):
                for key in rows:
                    self.registry.idempotency.forget(key.kid)
                    self.registry.remove(key.kid)
            raise
        return dict(answer(are_published))
