"""What two change of one key at once: whoever comes second looks at the key again."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from app.errors import Forbidden
from app.jwk import load_public, write_public
from app.keys.catalogue import Catalogue
from app.registry import Key, Origin, Publication, Registry, Residency, State
from app.rights import Principal
from hsm import KeyNotFound, KeySpec
from tests.shared.chains import chain_for, der

OWNER, HEIR = Principal("token:owner"), Principal("token:heir")
JWK = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
HOUR = timedelta(hours=1)

Change = Callable[[Key], Any]


@pytest.fixture
def catalogue(registry: Registry) -> Catalogue:
    return Catalogue(registry, Publication(most=50))


def pair(registry: Registry, **members: Any) -> Key:
    """Make the row of a key."""
    key = Key(
        kid=uuid4(),
        kid_public=uuid4(),
        owner=OWNER,
        spec=KeySpec(kty="EC", alg="ES256", crv="P-256"),
        origin=Origin.GENERATED,
        residency=Residency.TOKEN,
        public_jwk=JWK,
        **{"state": State.ACTIVE} | members,
    )
    registry.insert(key)
    return key


def overtaken(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Have somebody else change the key once, after the next one has read it."""
    before = Registry.change

    def after(registry: Registry, key: Key, untagged: Collection[str] = (), **values: Any) -> bool:
        monkeypatch.setattr(Registry, "change", before)
        change(key)
        return registry.change(key, untagged, **values)

    monkeypatch.setattr(Registry, "change", after)


def certify(catalogue: Catalogue, key: Key) -> Any:
    chain = [der(one) for one in chain_for(load_public(JWK))]
    return catalogue.certify(OWNER, str(key.kid), chain)


def uncertify(catalogue: Catalogue, key: Key) -> Any:
    return catalogue.uncertify(OWNER, str(key.kid))


def rename(catalogue: Catalogue, key: Key) -> Any:
    return catalogue.change(OWNER, str(key.kid), {"name": "other"})


changes = pytest.mark.parametrize("change", [certify, uncertify, rename])


@changes
def test_a_key_that_is_destroyed_meanwhile_is_not_found(change, catalogue, registry, monkeypatch):
    key = pair(registry)
    overtaken(monkeypatch, lambda key: registry.mark_destroyed(key.kid))
    with pytest.raises(KeyNotFound):
        change(catalogue, key)


@changes
def test_a_key_that_is_given_away_meanwhile_is_no_longer_the_callers(
    change, catalogue, registry, monkeypatch
):
    key = pair(registry)
    overtaken(monkeypatch, lambda key: registry.change(key, owner=HEIR))
    with pytest.raises(Forbidden):
        change(catalogue, key)
    assert registry.find(key.kid).owner == HEIR


@changes
def test_a_key_whose_state_changes_meanwhile_is_changed_all_the_same(
    change, catalogue, registry, monkeypatch
):
    key = pair(registry)
    overtaken(monkeypatch, lambda key: registry.change(key, state=State.COMPROMISED))
    change(catalogue, key)
    assert registry.find(key.kid).state is State.COMPROMISED


BEFORE: dict[str, dict[str, Any]] = {
    "deactivated": {"state": State.DEACTIVATED},
    "expired": {"expires_at": datetime.now(UTC) - HOUR},
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@changes
def test_a_key_that_is_made_active_meanwhile_stays_active(
    change, before, catalogue, registry, monkeypatch
):
    key = pair(registry, **before)
    later = datetime.now(UTC) + HOUR
    active = {"state": State.ACTIVE, "expires_at": later}
    overtaken(monkeypatch, lambda key: registry.change(key, **active))
    change(catalogue, key)
    found = registry.find(key.kid)
    assert (found.state, found.expires_at) == (State.ACTIVE, later)


def test_what_an_expired_key_is_called_can_be_changed(catalogue, registry):
    key = pair(registry, **BEFORE["expired"])
    assert rename(catalogue, key)["name"] == "other"


def test_the_key_of_the_tests_is_one() -> None:
    assert write_public(load_public(JWK)) == {name: JWK[name] for name in ("kty", "crv", "x", "y")}
