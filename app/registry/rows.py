"""Rows of ``keys`` as records, and back."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from app.registry.database import instant
from app.registry.records import Key, Origin, Residency, State
from hsm import KeySpec

VISIBLE: Final = (State.ACTIVE, State.DEACTIVATED, State.COMPROMISED)


def spec_of(row: Any) -> KeySpec:
    """Return what kind of key a row is."""
    return KeySpec(kty=row.kty, alg=row.alg, crv=row.crv, bits=row.bits)


def record_of(row: Any) -> Key:
    """Return the key of a row, or of those columns that operations need."""
    expires_at = instant(row.expires_at)
    is_over = row.state == State.ACTIVE and expires_at and expires_at <= datetime.now(UTC)
    return Key(
        kid=UUID(row.kid),
        kid_public=UUID(row.kid_public) if row.kid_public else None,
        owner=row.owner,
        spec=spec_of(row),
        origin=Origin(row.origin),
        residency=Residency(row.residency),
        state=State.DEACTIVATED if is_over else State(row.state),
        public_jwk=row.public_jwk,
        name=getattr(row, "name", None),
        created_at=instant(getattr(row, "created_at", None)),
        activated_at=instant(getattr(row, "activated_at", None)),
        deactivated_at=expires_at if is_over else instant(getattr(row, "deactivated_at", None)),
        expires_at=expires_at,
    )


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
        "origin": key.origin,
        "residency": key.residency,
        "state": key.state,
        "public_jwk": key.public_jwk,
    }
