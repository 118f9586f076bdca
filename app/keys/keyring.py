"""What principals do with keys: use them, make and destroy them; and what the service repairs."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from app.keys.budget import EncryptionBudget
from app.keys.creation import KeyCreation
from app.keys.phases.one_commit import OneCommit
from app.keys.phases.two_phases import TwoPhases
from app.keys.quota import Quota
from app.keys.recovery import Recovery
from app.keys.use import KeyUse
from app.keys.wrapped.imports import KeyImports
from app.registry import Publication, Registry
from hsm import Hsm, Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The use cases of keys, on one registry and one token."""

    use: KeyUse
    creation: KeyCreation
    imports: KeyImports
    recovery: Recovery

    @classmethod
    def of(  # noqa: PLR0913  # the settings of keys
        cls,
        registry: Registry,
        hsm: Hsm,
        *,
        state_dir: Path,
        publication: Publication | None = None,
        keys_per_owner: int | None = None,
        destroy_after: timedelta | None = None,
        takes_plain: bool = True,
        storage: Storage = Storage.TOKEN,
        observe_budget: Callable[[float], None] = lambda _part: None,
    ) -> Self:
        """Return them; keys are published as ``publication`` has it, if there is one.

        Deleted keys can be had back for ``destroy_after``. Unless it ``takes_plain`` ones, keys are
        only imported wrapped. Keys that say nothing of it are kept in ``storage``. What part of its
        encryptions a key has behind it ``observe_budget`` is told.
        """
        phases = TwoPhases(registry=registry, hsm=hsm, lock=state_dir / "unfinished.lock")
        budget = EncryptionBudget(registry, observe_budget)
        creation = KeyCreation(
            registry=registry,
            hsm=hsm,
            phases=phases,
            one_commit=OneCommit(registry=registry, hsm=hsm, phases=phases),
            publication=publication,
            quota=Quota(registry=registry, most=keys_per_owner),
            destroy_after=destroy_after,
            storage=storage,
        )
        return cls(
            use=KeyUse(registry=registry, rows=registry, hsm=hsm, budget=budget),
            creation=creation,
            imports=KeyImports(creation=creation, takes_plain=takes_plain),
            recovery=Recovery(registry=registry, hsm=hsm, phases=phases),
        )
