"""A key as the registry knows it, read from a row and written to one."""

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from uuid import UUID

from app.registry.databases.database import instant
from hsm import Blob, KeyRef, KeySpec, Storage


class State(StrEnum):
    """Where a key is in its life (NIST SP 800-57 part 1 §7); pending ones exist for nobody."""

    PENDING = "pending"
    WRAPPING = "wrapping"
    """For one import: others wrap a key for it. It is no key that anybody uses or sees."""
    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYING = "destroying"
    """Of no use any more, but still on the token, and to be had back."""
    DESTROYED = "destroyed"


VISIBLE: Final = (State.ACTIVE, State.DEACTIVATED, State.COMPROMISED)
"""States in which a key is of use."""

LASTING: Final = (*VISIBLE, State.DESTROYING)
"""States in which the token has to have the key."""


DESTROYED: Final[Mapping[str, Any]] = MappingProxyType(
    {"state": State.DESTROYED, "alias": None, "state_before": None, "destroy_at": None}
)
"""What is written of a key that is gone for ever; its alias is free."""


class Origin(StrEnum):
    """How the key came into the token."""

    GENERATED = "generated"
    IMPORTED = "imported"
    IMPORTED_WRAPPED = "imported_wrapped"
    UNWRAPPED = "unwrapped"


class Residency(StrEnum):
    """Whether the key has only ever been in the token, or has passed through the process."""

    TOKEN = "token"  # noqa: S105  # not a password
    PROCESS = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One row. ``kid_public`` names the public half of a generated pair (``None`` otherwise).

    ``alias`` is what its owner calls the key; there is no other key with that one.
    ``state`` is that of the moment of reading: an active key is deactivated once it has expired.
    ``destroy_after`` is how long it can be had back after a DELETE, if it has a rule of its own;
    ``destroy_at`` is when that is over, of a key in state ``destroying`` or ``wrapping``.
    ``certificates`` are in base64 (RFC 7517 §4.7), its own first; only a whole row has them.
    ``blob`` is the key itself, if the registry keeps it.
    """

    kid: UUID
    kid_public: UUID | None
    owner: str
    spec: KeySpec
    origin: Origin
    residency: Residency
    state: State = State.PENDING
    public_jwk: Mapping[str, str] | None = None
    alias: str | None = None
    certificates: Sequence[str] = ()
    name: str | None = None
    created_at: datetime | None = None
    activated_at: datetime | None = None
    deactivated_at: datetime | None = None
    expires_at: datetime | None = None
    destroy_after: timedelta | None = None
    destroy_at: datetime | None = None
    storage: Storage = Storage.TOKEN
    blob: Blob | None = field(default=None, repr=False)

    @property
    def ref(self) -> KeyRef:
        """How the key is named to ``hsm``."""
        if self.storage is Storage.TOKEN:
            return KeyRef(kid=self.kid, spec=self.spec)
        return KeyRef(
            kid=self.kid, spec=self.spec, storage=self.storage, blob=self.blob, row=self.sealed
        )

    @property
    def sealed(self) -> bytes:
        """What the seal of a blob covers beside it: whose key it is, and what it does."""
        spec = self.spec
        names = str(self.kid), self.kid_public and str(self.kid_public), self.owner
        kind = spec.kty, spec.alg, spec.crv, spec.bits, spec.signs_digests
        return json.dumps([*names, *kind]).encode("ascii")

    @property
    def private_name(self) -> str:
        """What the half that decrypts is called in headers."""
        return self.alias or str(self.kid)

    @property
    def public_name(self) -> str:
        """What the half that verifies is called in headers and JWKs."""
        return self.alias or str(self.kid_public or self.kid)


class Found(NamedTuple):
    """A key that somebody asks for: whether he is granted what he asks, and whether anything."""

    key: Key
    is_granted: bool
    is_known: bool


def ref_of(row: Any) -> KeyRef:
    """Return how the key of a row is named to ``hsm``."""
    return KeyRef(kid=UUID(row.kid), spec=spec_of(row), storage=Storage(row.storage))


def spec_of(row: Any) -> KeySpec:
    """Return what kind of key a row is; raise ``ValueError`` if there is no such kind."""
    if not (_is_kind(row.kty, row.alg, row.crv) and isinstance(row.bits, int | None)):
        raise ValueError("there is no such kind of key")
    return KeySpec(
        kty=row.kty,
        alg=row.alg,
        crv=row.crv,
        bits=row.bits,
        signs_digests=bool(row.signs_digests),
    )


@lru_cache
def _is_kind(kty: str, alg: str | None, crv: str | None) -> bool:
    try:
        return bool(KeySpec(kty=kty, alg=alg, crv=crv).kind)
    except LookupError:
        return False


def record_of(row: Any) -> Key:
    """Return the key of a row with all columns, or of those that operations need."""
    # SQLAlchemy takes as long to say that a row does not have a column as to read the others.
    if not hasattr(row, "created_at"):
        return hot_record_of(row)
    hot = _hot(row)
    others = {
        "certificates": _certificates(getattr(row, "certificates", None)),
        "name": getattr(row, "name", None),
        "created_at": instant(row.created_at),
        "activated_at": instant(getattr(row, "activated_at", None)),
        "deactivated_at": hot["deactivated_at"] or instant(getattr(row, "deactivated_at", None)),
        "destroy_after": _duration(getattr(row, "destroy_after", None)),
        "destroy_at": instant(getattr(row, "destroy_at", None)),
    }
    return Key(**hot | others)


def hot_record_of(row: Any) -> Key:
    """Return the key of a row, so far as operations need it."""
    return Key(**_hot(row))


def _hot(row: Any) -> dict[str, Any]:
    expires_at = instant(row.expires_at)
    is_over = row.state == State.ACTIVE and expires_at and expires_at <= datetime.now(UTC)
    return {
        "kid": UUID(row.kid),
        "kid_public": UUID(row.kid_public) if row.kid_public else None,
        "owner": row.owner,
        "spec": spec_of(row),
        "origin": Origin(row.origin),
        "residency": Residency(row.residency),
        "state": State.DEACTIVATED if is_over else State(row.state),
        "public_jwk": _object(row.public_jwk),
        "alias": row.alias,
        "deactivated_at": expires_at if is_over else None,
        "expires_at": expires_at,
        "storage": Storage(row.storage),
        "blob": _blob(row),
    }


def _object(found: Any) -> Mapping[str, str] | None:
    """Return a JWK, if there is one; raise ``TypeError`` for what is no object."""
    if not isinstance(found, dict | None):
        raise TypeError("a JWK is an object")
    return found


def _certificates(found: Any) -> Sequence[str]:
    """Return certificates in base64; raise ``TypeError`` or ``ValueError`` for what are none."""
    if found is None:
        return ()
    if not (isinstance(found, list) and all(isinstance(one, str) for one in found)):
        raise TypeError("certificates are a list of texts")
    for one in found[:1]:  # its hash is shown
        b64decode(one)
    return found


def _blob(row: Any) -> Blob | None:
    """Return the key itself, if all of it is there: what is missing breaks the seal."""
    if row.kek is None or row.blob is None or row.seal is None:
        return None
    return Blob(kek=UUID(row.kek), octets=row.blob, seal=row.seal)


def _duration(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def values_of(key: Key) -> dict[str, Any]:
    """Return the columns of a new row."""
    return {
        "kid": str(key.kid),
        "kid_public": str(key.kid_public) if key.kid_public else None,
        "owner": key.owner,
        "kty": key.spec.kty,
        "alg": key.spec.alg,
        "crv": key.spec.crv,
        "bits": key.spec.bits,
        "signs_digests": key.spec.signs_digests,
        "origin": key.origin,
        "residency": key.residency,
        "state": key.state,
        "public_jwk": key.public_jwk,
        "alias": key.alias,
        "name": key.name,
        "expires_at": key.expires_at,
        "destroy_after": key.destroy_after and int(key.destroy_after.total_seconds()),
        "destroy_at": key.destroy_at,
        "storage": key.storage,
        **blob_values(key.blob),
    }


def blob_values(blob: Blob | None) -> dict[str, Any]:
    """Return the columns of the key itself, none for one that the token keeps."""
    return {} if blob is None else {"kek": str(blob.kek), "blob": blob.octets, "seal": blob.seal}


def activation_of(ref: KeyRef, public_jwk: Mapping[str, str] | None) -> dict[str, Any]:
    """Return what is to be written of the key ``ref`` once it is made."""
    return {
        "kid": ref.kid,
        "state": State.ACTIVE,
        "public_jwk": public_jwk,
        "activated_at": datetime.now(UTC),
        **blob_values(ref.blob),
    }
