"""What principals do with keys: use them, make and destroy them; and what the service repairs."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from app.keys.budget import EncryptionBudget
from app.keys.creation import KeyCreation, TwoPhases
from app.keys.quota import Quota
from app.keys.recovery import Recovery
from app.keys.use import KeyUse
from app.registry import Publication, Registry
from hsm import Hsm


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The use cases of keys, on one registry and one token."""

    use: KeyUse
    creation: KeyCreation
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
    ) -> Self:
        """Return them; keys are published as ``publication`` has it, if there is one.

        Deleted keys can be had back for ``destroy_after``.
        """
        phases = TwoPhases(registry=registry, hsm=hsm, lock=state_dir / "unfinished.lock")
        budget = EncryptionBudget(registry)
        return cls(
            use=KeyUse(registry=registry, rows=registry, hsm=hsm, budget=budget),
            creation=KeyCreation(
                registry=registry,
                hsm=hsm,
                phases=phases,
                publication=publication,
                quota=Quota(registry=registry, most=keys_per_owner),
                destroy_after=destroy_after,
            ),
            recovery=Recovery(registry=registry, hsm=hsm, phases=phases),
        )
