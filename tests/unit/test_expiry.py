"""What expires next is told in time: of keys that are active, and of tokens that count."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from app.auth import api_tokens
from app.registry import State
from tests.unit.test_tallies import AES

NOW = datetime.now(UTC).replace(microsecond=0)


def in_days(days: int) -> datetime:
    return NOW + timedelta(days=days)


def test_of_keys(registry):
    def add(days: int | None, state: State = State.ACTIVE) -> None:
        at = None if days is None else in_days(days)
        registry.insert(replace(AES, kid=uuid4(), state=state, expires_at=at))

    add(None)
    add(-1)
    add(1, State.DEACTIVATED)
    assert registry.census.next_expiry(NOW) is None
    add(3)
    add(2)
    assert registry.census.next_expiry(NOW) == in_days(2)


def test_of_api_tokens(registry):
    def add(days: int | None) -> str:
        at = None if days is None else in_days(days)
        row = api_tokens.make("token:a", roles=[], name=None, expires_at=at)[1]
        registry.credentials.add(row)
        return row.id

    add(None)
    add(-1)
    revoked = add(1)
    assert registry.credentials.revoke(revoked)
    assert registry.credentials.next_expiry(NOW) is None
    add(3)
    add(2)
    assert registry.credentials.next_expiry(NOW) == in_days(2)
