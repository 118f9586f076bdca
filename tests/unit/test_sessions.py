"""Sessions of the admin page: when they end, and the key that workers share."""

from types import SimpleNamespace
from typing import Any

import pytest

from app.auth import sessions
from app.auth.api_tokens import TokenWay
from app.auth.schemes import Audience, Claim, Refused
from app.auth.sessions import COOKIE, SESSION_SECONDS, Sessions
from app.rights import Principal

AUDIENCE = Audience(frozenset(), frozenset(), frozenset({"form"}))


class Tokens(TokenWay):
    """All API tokens that there can be."""

    def __init__(self) -> None:
        """Without a registry."""

    def claim_of(self, token_id: str) -> Claim:
        return Claim(principal=token_id, prove=lambda: Principal(token_id))


def request(cookie: str, endpoint: str = "form") -> Any:
    return SimpleNamespace(endpoint=endpoint, cookies={COOKIE: cookie})


@pytest.fixture
def clock(monkeypatch):
    its = SimpleNamespace(now=1_800_000_000.9)
    monkeypatch.setattr(sessions, "time", SimpleNamespace(time=lambda: its.now))
    return its


def test_a_session_ends_after_an_hour_and_counts_on_forms_alone(clock):
    found = Sessions(Tokens(), AUDIENCE)
    cookie = found.cookie_for("jh_x")
    clock.now += SESSION_SECONDS - 1
    claim = found.claim(request(cookie))
    assert claim
    assert claim.principal == cookie.partition(".")[0]
    assert found.claim(request(cookie, endpoint="api")) is None
    clock.now += 1
    assert found.claim(request(cookie)) is None


def test_another_service_does_not_know_it(clock):
    cookie = Sessions(Tokens(), AUDIENCE).cookie_for("jh_x")
    claim = Sessions(Tokens(), AUDIENCE).claim(request(cookie))
    assert claim
    with pytest.raises(Refused, match="unknown session"):
        claim.prove()


def test_workers_of_one_master_share_a_key_that_others_cannot_read(monkeypatch, tmp_path):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert sessions._shared_key() == sessions._shared_key()
    (kept,) = tmp_path.glob("*.key")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert len(kept.read_bytes()) == 32
