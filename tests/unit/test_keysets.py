"""Key sets in the registry: their states, and that of all who try a step one makes it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.errors import KeySetTaken, RegistryUnavailable
from app.kid import KeySetName
from app.registry import Key, Origin, Registry, Residency, State
from app.registry.keysets.records import KeySet, Policy, VersionState
from app.registry.keysets.steps import Overtaken
from hsm import KeySpec
from tests.shared.reads import reads_of

SPEC = KeySpec(kty="OKP", alg="EdDSA", crv="Ed25519")
DAY = timedelta(days=1)
POLICY = Policy(every=30 * DAY, publish_ahead=DAY, retain=7 * DAY)
NAME = "orders"
EVENT = {"transition": "published"}
MOST = 2**31


def pending(registry: Registry) -> Key:
    """Return a key that is being made."""
    key = Key(
        kid=uuid4(),
        kid_public=uuid4(),
        owner="token:owner",
        spec=SPEC,
        origin=Origin.GENERATED,
        residency=Residency.TOKEN,
    )
    registry.insert(key)
    return key


def made(registry: Registry, name: str = NAME, policy: Policy | None = POLICY) -> KeySet:
    """Return a new key set with a first version."""
    key = pending(registry)
    keyset = KeySet(
        id=uuid4(),
        name=name,
        owner="token:owner",
        spec=SPEC,
        policy=policy,
        is_published=True,
        current_kid=key.kid,
    )
    registry.keysets.steps.add(keyset, key.ref, {"kty": "OKP"}, ["red"])
    return again(registry, name)


def again(registry: Registry, name: str = NAME) -> KeySet:
    """Return the key set as it is now."""
    keyset = registry.keysets.find(name)
    assert keyset is not None
    return keyset


def published(registry: Registry) -> KeySet:
    """Return a key set with a next version, of which the audit log knows."""
    registry.keysets.steps.add_next(made(registry), pending(registry).ref, None, EVENT)
    assert registry.keysets.steps.tell(again(registry), now=datetime.now(UTC))
    return again(registry)


def rotated(registry: Registry, now: datetime) -> KeySet:
    """Return a key set that has rotated, of which the audit log knows."""
    registry.keysets.steps.rotate(published(registry), EVENT, now=now, rotates_at=None, due_at=None)
    registry.keysets.steps.tell(again(registry), now=datetime.now(UTC))
    return again(registry)


def due(registry: Registry, now: datetime, most: int = MOST) -> list[str]:
    """Return the names of the sets with which something is to be done; the outlook knows it."""
    found = [one.name for one in registry.keysets.due(now, most_encryptions=most)]
    due_at = registry.keysets.outlook(most_encryptions=most).due_at
    assert (due_at is not None and due_at <= now) is bool(found)
    return found


def states(registry: Registry) -> list[tuple[VersionState, State]]:
    """Return the states of all versions and of their keys."""
    found = []
    for version in again(registry).versions:
        key = registry.find(version.kid)
        assert key is not None
        found.append((version.state, key.state))
    return found


def test_the_first_version_is_current_at_once(registry):
    keyset = made(registry)
    assert states(registry) == [(VersionState.CURRENT, State.ACTIVE)]
    assert registry.keysets.name_of(keyset.current_kid) == (NAME, VersionState.CURRENT)
    assert registry.tags.of(keyset.current_kid) == ["red"]
    assert (keyset.policy, keyset.is_published, keyset.step) == (POLICY, True, 0)


def test_a_name_is_that_of_one_key_set(registry):
    made(registry)
    with pytest.raises(KeySetTaken):
        made(registry)
    assert len(again(registry).versions) == 1


def test_only_the_current_version_makes_anything_new(registry):
    published(registry)
    assert states(registry) == [
        (VersionState.CURRENT, State.ACTIVE),
        (VersionState.NEXT, State.DEACTIVATED),
    ]
    keyset, now = again(registry), datetime.now(UTC)
    registry.keysets.steps.rotate(keyset, EVENT, now=now, rotates_at=None, due_at=None)
    assert states(registry) == [
        (VersionState.PREVIOUS, State.DEACTIVATED),
        (VersionState.CURRENT, State.ACTIVE),
    ]
    assert again(registry).current_kid == keyset.next_kid
    assert again(registry).next_kid is None


def test_a_previous_version_retires_when_its_time_is_over(registry):
    now = datetime.now(UTC)
    keyset = rotated(registry, now)
    previous = keyset.versions[0]
    assert previous.retires_at == now + POLICY.retain
    due = registry.keysets.due
    assert due(now + POLICY.retain - DAY, most_encryptions=MOST) == []
    assert [one.name for one in due(now + POLICY.retain, most_encryptions=MOST)] == [NAME]
    registry.tags.add(previous.kid, ["jwks"])
    registry.keysets.steps.retire(keyset, previous, EVENT, "jwks")
    assert states(registry)[0] == (VersionState.RETIRED, State.DEACTIVATED)
    assert registry.tags.of(previous.kid) == ["red"]


def test_a_step_is_made_once(registry):
    keyset, now = published(registry), datetime.now(UTC)
    steps = registry.keysets.steps
    steps.rotate(keyset, EVENT, now=now, rotates_at=None, due_at=None)
    told = again(registry)
    tried: tuple[Callable[[], object], ...] = (
        lambda: steps.rotate(keyset, EVENT, now=now, rotates_at=None, due_at=None),
        lambda: steps.add_next(keyset, pending(registry).ref, None, EVENT),
        lambda: steps.retire(keyset, keyset.versions[0], EVENT, "jwks"),
        lambda: steps.compromise(keyset, keyset.versions[0], "jwks", now=now),
        lambda: steps.schedule(keyset, rotates_at=now, due_at=now),
        lambda: steps.grant(keyset, "token:a", ["sign"]),
        lambda: steps.destroy(keyset, None),
    )
    for step in tried:
        with pytest.raises(Overtaken):
            step()
    assert again(registry) == told


def test_nothing_more_is_done_before_the_audit_log_has_a_line(registry):
    keyset = made(registry)
    steps = registry.keysets.steps
    steps.add_next(keyset, pending(registry).ref, None, EVENT)
    untold, now = again(registry), datetime.now(UTC)
    assert untold.unaudited == EVENT
    with pytest.raises(Overtaken):
        steps.rotate(untold, EVENT, now=now, rotates_at=None, due_at=None)
    assert due(registry, now) == [NAME]
    assert [steps.tell(untold, now=now), steps.tell(untold, now=now)] == [True, False]
    assert again(registry).unaudited is None
    steps.rotate(again(registry), EVENT, now=now, rotates_at=None, due_at=None)


def test_a_version_is_published_when_that_is_told(registry):
    keyset = made(registry)
    registry.keysets.steps.add_next(keyset, pending(registry).ref, None, EVENT)
    assert again(registry).versions[1].published_at is None
    before = datetime.now(UTC)
    registry.keysets.steps.tell(again(registry), now=datetime.now(UTC))
    told = again(registry).versions[1].published_at
    assert told is not None
    assert told >= before


def test_a_compromised_version_is_used_and_published_no_longer(registry):
    keyset, now = published(registry), datetime.now(UTC)
    registry.tags.add(keyset.current_kid, ["jwks"])
    registry.keysets.steps.compromise(keyset, keyset.versions[0], "jwks", now=now)
    assert states(registry)[0] == (VersionState.COMPROMISED, State.COMPROMISED)
    assert registry.tags.of(keyset.current_kid) == ["red"]
    urgent = again(registry)
    assert urgent.is_urgent
    assert due(registry, now) == [NAME]
    registry.keysets.steps.rotate(urgent, EVENT, now=now, rotates_at=None, due_at=None)
    assert states(registry) == [
        (VersionState.COMPROMISED, State.COMPROMISED),
        (VersionState.CURRENT, State.ACTIVE),
    ]


def test_a_compromised_version_was_deactivated_when_the_next_one_took_over(registry):
    keyset = rotated(registry, datetime.now(UTC))
    previous = keyset.versions[0]
    deactivated_at = registry.whole(previous.kid).deactivated_at
    registry.keysets.steps.compromise(keyset, previous, "jwks", now=datetime.now(UTC))
    compromised = registry.whole(previous.kid)
    assert (compromised.state, compromised.deactivated_at) == (State.COMPROMISED, deactivated_at)


def test_a_current_key_that_has_encrypted_often_is_due(registry):
    keyset = made(registry)
    now = datetime.now(UTC)
    registry.reserve_encryptions(keyset.current_kid, 9, most=MOST)
    assert due(registry, now, 10) == []
    assert not registry.keysets.is_spent(keyset, 10)
    registry.reserve_encryptions(keyset.current_kid, 1, most=MOST)
    assert due(registry, now, 10) == [NAME]
    assert registry.keysets.is_spent(keyset, 10)


def test_nothing_is_to_be_done_before_the_first_instant_that_a_set_has(registry):
    assert registry.keysets.outlook(most_encryptions=MOST) == (None, None)
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    keyset = rotated(registry, now - 7 * DAY - DAY)
    assert due(registry, now) == [NAME]  # a version is to be retired
    registry.keysets.steps.retire(keyset, keyset.versions[0], EVENT, "jwks")
    registry.keysets.steps.tell(again(registry), now=now)
    assert due(registry, now) == []
    registry.keysets.steps.schedule(again(registry), rotates_at=now + DAY, due_at=now)
    assert registry.keysets.outlook(most_encryptions=MOST) == (now + DAY, now)
    assert due(registry, now) == [NAME]
    assert due(registry, now - DAY) == []


def test_to_look_whether_anything_is_due_is_one_question_and_none_if_nothing_has_changed(
    registry,
):
    """Every worker looks once a second. SQLite says of itself whether anything has changed."""
    made(registry)
    outlook = registry.keysets.outlook(most_encryptions=MOST)
    with reads_of(registry) as asked:
        assert registry.keysets.outlook(most_encryptions=MOST) == outlook
    assert len(asked) == (registry._database.engine.dialect.name != "sqlite")


def test_grants_and_tags_are_those_of_all_versions_that_ever_will_be(registry):
    keyset = made(registry)
    steps = registry.keysets.steps
    steps.grant(keyset, "token:a", ["sign", "read"])
    steps.add_next(again(registry), pending(registry).ref, None, EVENT)
    steps.tell(again(registry), now=datetime.now(UTC))
    for version in again(registry).versions:
        assert registry.grants.of(version.kid) == {"token:a": ["read", "sign"]}
        assert registry.tags.of(version.kid) == ["red"]
    steps.grant(again(registry), "token:a", ["sign"])
    steps.change(again(registry), None, ["blue"], rotates_at=None, due_at=None)
    for version in again(registry).versions:
        assert registry.grants.of(version.kid) == {"token:a": ["sign"]}
        assert registry.tags.of(version.kid) == ["blue"]
    assert again(registry).policy is None


def test_a_name_finds_the_current_key_and_an_alias_of_that_name_is_another(registry):
    keyset = published(registry)
    registry.keysets.steps.grant(keyset, "token:a", ["sign"])
    other = Key(
        kid=uuid4(),
        kid_public=None,
        owner="token:b",
        spec=SPEC,
        origin=Origin.GENERATED,
        residency=Residency.TOKEN,
        state=State.ACTIVE,
        alias=NAME,
    )
    registry.insert(other)

    def current() -> UUID:
        one = registry.find_for("token:a", "sign", KeySetName.of(NAME))
        assert one is not None
        assert (one.is_granted, one.is_known) == (True, True)
        many = registry.find_all_for("token:a", [KeySetName.of(NAME), NAME])
        assert many[KeySetName.of(NAME)] == (one.key, frozenset({"sign"}))
        assert many[NAME][0].kid == other.kid
        return one.key.kid

    assert current() == keyset.current_kid
    now = datetime.now(UTC)
    registry.keysets.steps.rotate(again(registry), EVENT, now=now, rotates_at=None, due_at=None)
    assert current() == keyset.next_kid
    assert registry.find_for("token:a", "sign", KeySetName.of("another")) is None
    assert registry.find_for("token:a", "sign", str(KeySetName.of(NAME))) is None


@pytest.mark.parametrize(
    ("after", "state"), [(None, State.DESTROYED), (DAY, State.DESTROYING)], ids=["now", "later"]
)
def test_with_a_key_set_go_its_versions(after, state, registry):
    keyset = published(registry)
    kids = {version.kid for version in keyset.versions}
    destroy_at = None if after is None else datetime.now(UTC) + after
    refs = registry.keysets.steps.destroy(keyset, destroy_at)
    assert {ref.kid for ref in refs} == (kids if after is None else set())
    assert registry.keysets.find(NAME) is None
    assert registry.specs([state]).keys() == kids
    assert registry.keysets.name_of(keyset.current_kid) is None
    made(registry)  # the name is free


SPOILING = {
    "set": "UPDATE keysets SET current_kid = 'none' WHERE id = :id",
    "version": "UPDATE versions SET state = 'none' WHERE keyset = :id",
}


@pytest.mark.parametrize("statement", SPOILING.values(), ids=SPOILING)
def test_a_key_set_that_cannot_be_read_takes_no_other_with_it(statement, registry, caplog):
    now = datetime.now(UTC)
    sets = {name: made(registry, name) for name in ("a", "b", "c")}
    for keyset in sets.values():
        registry.keysets.steps.schedule(keyset, rotates_at=now, due_at=now)
    with registry._database.writing() as connection:
        connection.execute(text(statement), {"id": str(sets["a"].id)})
    with pytest.raises(RegistryUnavailable):
        registry.keysets.find("a")
    listed = registry.keysets.page(None, after="", limit=2)
    assert [keyset.name for keyset in listed] == ["b", "c"]
    assert due(registry, now) == ["b", "c"]
    assert "a row of keysets cannot be read: a" in caplog.text


@pytest.mark.parametrize("step", ["grant", "change"])
def test_nothing_is_kept_of_a_version_that_is_destroyed_meanwhile(step, registry):
    keyset = rotated(registry, datetime.now(UTC))
    gone, current = (version.kid for version in keyset.versions)
    registry.mark_destroyed(gone)
    registry.remove(gone)
    steps = registry.keysets.steps
    if step == "grant":
        steps.grant(keyset, "token:a", ["read"])
    else:
        steps.change(keyset, POLICY, ["blue"], rotates_at=None, due_at=None)
    kept = {
        kid: (registry.grants.of(kid), registry.tags.of(kid)) for kid in (keyset.id, gone, current)
    }
    assert kept[gone] == ({}, [])
    assert kept[current] == kept[keyset.id] != ({}, ["red"])


def test_key_sets_are_listed_by_name_to_those_who_may_read_them(registry):
    for name in ("b", "a", "c"):
        made(registry, name)
    registry.keysets.steps.grant(again(registry, "c"), "token:a", ["read"])
    registry.keysets.steps.grant(again(registry, "b"), "*", ["sign"])

    def names(reader: str | None, **page: object) -> list[str]:
        found = registry.keysets.page(reader, **({"after": "", "limit": 9} | page))
        return [keyset.name for keyset in found]

    assert names(None) == names("token:owner") == ["a", "b", "c"]
    assert names("token:a") == ["c"]
    assert names(None, limit=1) == ["a"]
    assert names(None, after="a") == ["b", "c"]
