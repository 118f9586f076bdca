"""A key as the registry knows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from hsm import KeySpec


class State(StrEnum):
    """Where a key is in its life (NIST SP 800-57 part 1 §7); pending ones exist for nobody."""

    PENDING = "pending"
    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"


class Origin(StrEnum):
    """How the key came into the token."""

    GENERATED = "generated"
    IMPORTED = "imported"
    UNWRAPPED = "unwrapped"


class Residency(StrEnum):
    """Whether the key has only ever been in the token, or has passed through the process."""

    TOKEN = "token"  # noqa: S105  # not a password
    PROCESS = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One row. ``kid_public`` names the public half of a generated pair (``None`` otherwise).

    ``state`` is that of the moment of reading: an active key is deactivated once it has expired.
    """

    kid: UUID
    kid_public: UUID | None
    owner: str
    spec: KeySpec
    origin: Origin
    residency: Residency
    state: State = State.PENDING
    public_jwk: Mapping[str, str] | None = None
    name: str | None = None
    created_at: datetime | None = None
    activated_at: datetime | None = None
    deactivated_at: datetime | None = None
    expires_at: datetime | None = None
