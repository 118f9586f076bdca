"""Key sets that rotate: when, once, whoever looks or dies over it; time is moved in their rows."""

# ruff: noqa: PLR0913, PLR0917  # fixtures

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.audit import AuditLog
from app.config import Config
from app.errors import BadRequest, KeySetTaken, RegistryUnavailable
from app.jose import encoding
from app.keys import recovery
from app.keys.catalogue import Catalogue
from app.keys.keyring import Keyring
from app.keys.sets.catalogue import KeySetCatalogue
from app.kid import KeySetName
from app.observability.metrics import TRANSITIONS
from app.operator.cli.service import opened
from app.registry import KeySet, Publication, Registry, State, VersionState
from app.registry.keysets.keysets import KeySets
from app.registry.keysets.steps import Steps
from app.registry.tables import keysets, versions
from app.rights import Principal, Role
from app.schemas.keys import KeyRequest
from app.schemas.keysets import KeySetRequest
from app.schemas.labels import Labels
from hsm import CryptoFailure, Hsm, KeyNotFound, KeyRef, KeySpec, TokenUnavailable
from tests.shared.drivers import dies, killed

OWNER = Principal("token:owner", {Role.CREATOR})
OTHER = Principal("token:other", {Role.CREATOR})
DAY = timedelta(days=1)
MAX_AGE = timedelta(minutes=1)
POLICY = {"every": 30 * DAY, "publish_ahead": DAY, "retain": 7 * DAY}
EC = KeySpec(kty="EC", alg="ES256", crv="P-256")
AES = KeySpec(kty="oct", alg="A256GCM", bits=256)
NAME = "orders"
PUBLICATION = Publication(most=50)


def request(
    spec: KeySpec = EC, policy: Mapping[str, timedelta] | None = POLICY, **labels: Any
) -> KeySetRequest:
    """Return what makes a key set."""
    key = KeyRequest(spec=spec, labels=Labels(**labels))
    return KeySetRequest(key=key, policy=policy, tags=labels.get("tags"))


@dataclass(frozen=True)
class Host:
    """A service of its own on a registry that others may share, and its audit log."""

    registry: Registry
    sets: KeySetCatalogue
    keyring: Keyring
    audit: Path

    @classmethod
    def of(
        cls,
        url: str,
        token: Hsm,
        state_dir: Path,
        name: str = "host",
        publication: Publication = PUBLICATION,
    ) -> "Host":
        """Return one, whose workers share ``state_dir``."""
        registry, audit = Registry(url, host=name), state_dir / "audit.log"
        keyring = Keyring.of(registry, token, state_dir=state_dir, publication=publication)
        sets = KeySetCatalogue.of(
            keyring.creation, AuditLog(audit), max_age=MAX_AGE, publication=publication
        )
        return cls(registry, sets, keyring, audit)

    def make(self, made: KeySetRequest | None = None) -> KeySet:
        """Make a key set."""
        self.sets.put(OWNER, NAME, made or request())
        return self.now

    @property
    def now(self) -> KeySet:
        """The key set as it is now."""
        keyset = self.registry.keysets.find(NAME)
        assert keyset is not None
        return keyset

    def settle(self) -> KeySet:
        """Make what is due."""
        self.sets.rotation.settle()
        return self.now

    def move(self, **times: datetime) -> None:
        """Move time, in the row of the key set."""
        with self.registry._database.engine.begin() as connection:
            update = keysets.update().where(keysets.c.name == NAME).values(times)
            assert connection.execute(update).rowcount == 1

    def retire_at(self, kid: UUID, instant: datetime) -> None:
        """Move time, in the row of a version."""
        with self.registry._database.engine.begin() as connection:
            update = versions.update().where(versions.c.kid == str(kid))
            assert connection.execute(update.values(retires_at=instant)).rowcount == 1

    def published(self) -> KeySet:
        """Return the key set with a next version."""
        self.move(due_at=past())
        return self.settle()

    def rotated(self) -> KeySet:
        """Return the key set after a rotation."""
        self.published()
        self.move(rotates_at=past(), due_at=past())
        return self.settle()

    @property
    def states(self) -> list[str]:
        """The states of all versions."""
        return [str(version.state) for version in self.now.versions]

    @property
    def jwks(self) -> set[UUID]:
        """What everybody may fetch."""
        return {key.kid for key in self.registry.tags.published(PUBLICATION)}

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What the audit log says."""
        return [json.loads(line) for line in self.audit.read_text().splitlines()]

    @property
    def transitions(self) -> list[str]:
        """The transitions of which the audit log says so."""
        return [line["transition"] for line in self.lines] if self.audit.exists() else []


def past() -> datetime:
    """Return an instant that is over."""
    return datetime.now(UTC) - timedelta(milliseconds=1)


@pytest.fixture
def host(registry_url: str, token: Hsm, tmp_path: Path) -> Iterator[Host]:
    """One whose keys are on the token no longer than the test."""
    host = Host.of(registry_url, token, tmp_path)
    yield host
    for kid, spec in host.registry.specs().items():
        token.destroy(KeyRef(kid=kid, spec=spec))
    host.registry._database.engine.dispose()


sqlite = pytest.mark.parametrize("registry_url", ["sqlite"], indirect=True)


def test_the_life_of_a_version(host):
    first = host.make().current_kid
    assert host.settle().next_kid is None  # its time is to come
    assert host.jwks == {first}

    before = datetime.now(UTC)
    keyset = host.published()
    second = keyset.next_kid
    assert (host.states, host.jwks) == (["current", "next"], {first, second})
    assert keyset.rotates_at >= before + POLICY["every"] - POLICY["publish_ahead"]
    assert host.settle() == keyset  # nothing is due

    host.move(rotates_at=past(), due_at=past())
    keyset = host.settle()
    assert (keyset.current_kid, keyset.next_kid) == (second, None)
    assert (host.states, host.jwks) == (["previous", "current"], {first, second})
    assert host.registry.find(first).state is State.DEACTIVATED

    host.retire_at(first, past())
    host.settle()
    assert (host.states, host.jwks) == (["retired", "current"], {second})
    assert host.transitions == ["published", "rotated", "retired"]
    assert host.lines[1]["version"] == str(second)


def test_no_version_signs_that_has_not_been_published_for_long_enough(host):
    host.make()
    host.move(rotates_at=past(), due_at=past() - 3 * DAY)  # the service was away
    before = datetime.now(UTC)
    keyset = host.settle()
    assert (host.states, host.transitions) == (["current", "next"], ["published"])
    published_at = keyset.versions[1].published_at
    assert before <= published_at
    assert keyset.rotates_at >= published_at + POLICY["publish_ahead"]


def test_a_version_is_published_from_the_line_on(host, monkeypatch):
    host.make()
    host.move(due_at=past())

    def full(*_arguments: object, **_members: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(AuditLog, "record_all", full)
    keyset = host.settle()
    assert keyset.versions[1].published_at is None
    assert keyset.rotates_at > datetime.now(UTC)
    monkeypatch.undo()
    host.move(rotates_at=past())  # it does not count before it is published
    before = datetime.now(UTC)
    assert host.settle().rotates_at >= before + POLICY["publish_ahead"]
    assert host.transitions == ["published"]


def test_one_rotation_a_period_and_none_that_were_missed(host):
    host.make()
    host.published()
    planned = past()
    host.move(rotates_at=planned, due_at=planned)
    keyset = host.settle()
    assert keyset.rotates_at == planned + POLICY["every"]
    assert keyset.due_at == keyset.rotates_at - POLICY["publish_ahead"]
    long_ago = past() - 100 * DAY
    assert host.sets.rotation.next_rotation(replace(keyset, rotates_at=long_ago), planned) == (
        planned + POLICY["every"]
    )


def test_without_a_policy_a_set_rotates_on_request_only(host):
    keyset = host.make(request(policy=None))
    assert (keyset.rotates_at, keyset.due_at) == (None, None)
    before = datetime.now(UTC)
    host.sets.rotate(OWNER, NAME, None)
    keyset = host.settle()
    assert before + MAX_AGE <= keyset.rotates_at <= datetime.now(UTC) + MAX_AGE
    host.move(rotates_at=past(), due_at=past())
    keyset = host.settle()
    assert host.states == ["previous", "current"]
    assert (keyset.rotates_at, keyset.versions[0].retires_at) == (None, None)
    host.sets.put(OWNER, NAME, request())  # from now on it has one
    assert host.now.versions[0].retires_at is not None
    assert host.now.rotates_at is not None


def test_a_rotation_that_is_asked_for_comes_as_soon_as_it_may_or_then(host):
    host.make()
    before = datetime.now(UTC)
    host.sets.rotate(OWNER, NAME, None)
    keyset = host.settle()
    assert host.states == ["current", "next"]
    soonest = keyset.versions[1].published_at + POLICY["publish_ahead"]
    assert soonest <= keyset.rotates_at <= datetime.now(UTC) + POLICY["publish_ahead"]
    later = before + 20 * DAY
    host.sets.rotate(OWNER, NAME, later)
    assert host.settle().rotates_at == later
    host.sets.rotate(OWNER, NAME, before)
    assert host.settle().rotates_at == soonest


def test_a_key_that_has_encrypted_often_has_its_set_rotate(host):
    keyset = host.make(request(AES))
    few = replace(host.sets.rotation, most_encryptions=10)
    host.registry.reserve_encryptions(keyset.current_kid, 10, most=2**32)
    before = datetime.now(UTC)
    few.settle()
    keyset = host.now
    assert host.lines[0]["cause"] == "budget"
    assert keyset.rotates_at <= datetime.now(UTC) + POLICY["publish_ahead"]
    assert keyset.rotates_at >= before + POLICY["publish_ahead"]
    few.settle()
    assert host.states == ["current", "next"]
    host.move(rotates_at=past(), due_at=past())
    few.settle()
    few.settle()
    assert host.states == ["previous", "current"]


def test_a_set_does_not_rotate_while_there_is_no_room_for_its_next_version(
    host, registry_url, token, tmp_path
):
    one = Host.of(registry_url, token, tmp_path, publication=Publication(most=1))
    one.make()
    one.published()
    assert (one.states, one.transitions) == (["current"], [])
    assert len(one.registry.specs()) == 1  # nothing is left of the one that was refused
    host.settle()
    assert host.states == ["current", "next"]


# --- Revocation ---


def unable(*_arguments: object, **_members: object) -> None:
    """Fail here."""
    raise RegistryUnavailable


def test_the_next_version_takes_the_place_of_a_compromised_one(host):
    host.make()
    keyset = host.published()
    host.sets.revoke(OWNER, NAME, keyset.current_kid)
    assert host.states == ["compromised", "current"]
    assert host.now.current_kid == keyset.next_kid
    assert host.jwks == {keyset.next_kid}
    assert host.registry.find(keyset.current_kid).state is State.COMPROMISED
    assert host.transitions == ["published", "rotated"]


def test_without_a_next_version_one_is_made(host):
    keyset = host.make()
    host.sets.revoke(OWNER, NAME, keyset.current_kid)
    assert host.states == ["compromised", "current"]
    assert host.jwks == {host.now.current_kid}
    assert host.lines[0]["cause"] == "revocation"
    assert host.now.rotates_at > datetime.now(UTC) + 29 * DAY


def test_what_cannot_be_made_now_is_made_later_and_a_compromised_key_signs_no_more(
    host, monkeypatch
):
    keyset = host.make()

    def away(*_arguments: object) -> None:
        raise TokenUnavailable("the token is away")

    monkeypatch.setattr(Hsm, "offers", away)
    host.sets.revoke(OWNER, NAME, keyset.current_kid)
    assert (host.states, host.jwks) == (["compromised"], set())
    monkeypatch.undo()
    with pytest.raises(CryptoFailure, match="The key is compromised"):
        sign(host)
    host.settle()
    assert host.states == ["compromised", "current"]
    sign(host)


def test_a_compromised_version_that_is_destroyed_has_a_successor_too(host, monkeypatch):
    keyset = host.make()
    with monkeypatch.context() as patch:
        patch.setattr(Steps, "add_next", unable)
        host.sets.revoke(OWNER, NAME, keyset.current_kid)
    host.keyring.creation.destroy(OWNER, str(keyset.current_kid))
    assert host.states == []
    host.settle()
    assert host.states == ["current"]
    sign(host)


@pytest.mark.parametrize("place", [0, 2], ids=["previous", "next"])
def test_another_version_than_the_current_is_revoked_too(place, host):
    host.make()
    host.rotated()
    keyset = host.published()
    kid = keyset.versions[place].kid
    host.sets.revoke(OWNER, NAME, kid)
    host.settle()
    assert host.now.current_kid == keyset.current_kid
    assert host.states[place] == "compromised"
    assert kid not in host.jwks
    assert host.states.count("next") == 1
    host.sets.revoke(OWNER, NAME, kid)  # again, which changes nothing


def test_a_version_that_was_deleted_and_then_revoked_comes_back_compromised(host):
    host.make(request(destroy_after=DAY))
    previous = host.rotated().versions[0].kid
    host.keyring.creation.destroy(OWNER, str(previous))
    host.sets.revoke(OWNER, NAME, previous)
    assert host.registry.find(previous) is None
    Catalogue(host.registry, PUBLICATION).restore(OWNER, str(previous))
    assert host.registry.find(previous).state is State.COMPROMISED
    assert previous not in host.jwks


# --- Use ---


def sign(host: Host) -> str:
    """Sign by the name of the key set; return the kid in the header."""
    jws = host.keyring.use.sign(OWNER, kid=KeySetName.of(NAME), alg="ES256", data="AAAA")
    return str(json.loads(encoding.decode(jws["protected"]))["kid"])


def test_the_current_version_signs_and_no_other(host):
    host.make()
    host.rotated()
    keyset = host.published()
    previous, current, following = (host.registry.find(one.kid) for one in keyset.versions)
    assert sign(host) == str(current.kid_public)
    for key in (previous, following):
        with pytest.raises(CryptoFailure, match="The key is deactivated"):
            host.keyring.use.sign(OWNER, kid=str(key.kid), alg="ES256", data="AAAA")


def test_what_is_of_the_set_is_not_changed_for_one_version(host):
    keyset = host.make()
    kid = str(keyset.current_kid)
    catalogue = Catalogue(host.registry, PUBLICATION)
    changes: tuple[Callable[[], object], ...] = (
        lambda: catalogue.change(OWNER, kid, {"state": "deactivated"}),
        lambda: catalogue.tag(OWNER, kid, ["x"]),
        lambda: catalogue.untag(OWNER, kid, ["x"]),
        lambda: catalogue.grant(OWNER, kid, "token:a", []),
        lambda: host.keyring.creation.destroy(OWNER, kid),
        lambda: host.keyring.creation.destroy_at_once(OWNER, kid),
    )
    for change in changes:
        with pytest.raises(CryptoFailure, match="of the key set orders"):
            change()
    assert host.states == ["current"]


def test_a_version_that_is_not_needed_any_more_can_be_destroyed(host):
    first = host.make().current_kid
    host.rotated()
    host.keyring.creation.destroy(OWNER, str(first))
    assert host.states == ["current"]
    assert len(host.published().versions) == 2


# --- Making and changing ---


def test_a_policy_that_verifiers_cannot_follow_is_refused(host):
    for policy in (
        POLICY | {"publish_ahead": MAX_AGE - timedelta(seconds=1)},
        POLICY | {"publish_ahead": POLICY["every"]},
    ):
        with pytest.raises(BadRequest):
            host.sets.put(OWNER, NAME, request(policy=policy))
    assert host.registry.keysets.find(NAME) is None
    assert host.registry.specs() == {}


def test_another_policy_counts_at_once(host):
    keyset = host.make()
    host.sets.put(OWNER, NAME, request(policy=POLICY | {"every": 3 * DAY}))
    since = keyset.versions[0].current_at
    assert host.now.rotates_at == since + 3 * DAY
    assert host.now.due_at == since + 2 * DAY
    host.sets.put(OWNER, NAME, request(policy=None))
    assert (host.now.rotates_at, host.now.due_at) == (None, None)
    assert len(host.now.versions) == 1


def test_a_name_is_taken_by_other_keys_and_by_others(host):
    host.make()
    with pytest.raises(KeySetTaken):
        host.sets.put(OWNER, NAME, request(AES))
    with pytest.raises(KeySetTaken):
        host.sets.put(OTHER, NAME, request())
    asks: tuple[Callable[[], object], ...] = (
        lambda: host.sets.read(OTHER, NAME),
        lambda: host.sets.destroy(OTHER, NAME),
        lambda: host.sets.rotate(OTHER, NAME, None),
        lambda: host.sets.revoke(OTHER, NAME, host.now.current_kid),
    )
    for ask in asks:
        with pytest.raises(KeyNotFound):
            ask()


def test_a_set_is_destroyed_with_its_versions(host, token):
    host.make()
    kids = {version.kid for version in host.rotated().versions}
    host.sets.destroy(OWNER, NAME)
    assert host.registry.keysets.find(NAME) is None
    assert host.registry.specs() == {}
    assert not kids & set(token.inventory())


def test_keys_of_a_destroyed_set_can_be_had_back_if_that_was_said(host, token):
    host.make(request(destroy_after=DAY))
    kids = {version.kid for version in host.published().versions}
    host.sets.destroy(OWNER, NAME)
    assert host.registry.specs([State.DESTROYING]).keys() == kids
    assert kids <= set(token.inventory())


# --- What is counted ---


class Counted:
    """Who counts."""

    def __init__(self) -> None:
        self.transitions: list[str] = []
        self.days = 0.0

    def stepped(self, transition: str) -> None:
        self.transitions.append(transition)

    def rotates_in(self, days: float) -> None:
        self.days = days


def test_each_transition_is_counted_and_the_days_to_the_next_are_known(host):
    counted = Counted()
    rotation = replace(host.sets.rotation, counts=counted)
    rotation.settle()
    assert counted.days == math.inf
    host.make()
    rotation.settle()
    assert 29.9 < counted.days <= 30
    host.move(due_at=past())
    rotation.settle()
    host.move(rotates_at=past(), due_at=past())
    rotation.settle()
    host.retire_at(host.now.versions[0].kid, past())
    rotation.settle()
    assert counted.transitions == ["published", "rotated", "retired"] == list(TRANSITIONS)


# --- Several ---


def test_of_workers_and_hosts_one_makes_each_step(host, registry_url, token, tmp_path):
    (tmp_path / "other").mkdir()
    hosts = [
        host,
        Host.of(registry_url, token, tmp_path),
        Host.of(registry_url, token, tmp_path / "other", "other"),
    ]
    host.make()
    together = threading.Barrier(len(hosts))

    def settle(one: Host) -> None:
        together.wait()
        one.sets.rotation.settle()

    for _ in range(3):
        for times in ({"due_at": past()}, {"rotates_at": past(), "due_at": past()}):
            host.move(**times)
            with ThreadPoolExecutor(len(hosts)) as threads:
                list(threads.map(settle, hosts))
            host.move(changed_at=past() - DAY)  # whoever has not told is dead
            host.settle()
    assert host.states == ["previous"] * 3 + ["current"]
    told = [line for one in (host, hosts[2]) if one.audit.exists() for line in one.lines]
    steps = sorted((line["step"], line["transition"]) for line in told)
    assert [name for _, name in steps] == ["published", "rotated"] * 3
    live = {version.kid for version in host.now.versions}
    assert host.registry.specs().keys() == live  # those who came late have left nothing


def test_of_two_who_make_one_set_at_once_both_have_it(host, monkeypatch):
    add, others = Steps.add, dict[str, Any]()

    def overtaken(*arguments: Any, **members: Any) -> None:
        monkeypatch.setattr(Steps, "add", add)
        others.update(host.sets.put(OWNER, NAME, request()))
        add(*arguments, **members)

    monkeypatch.setattr(Steps, "add", overtaken)
    told = host.sets.put(OWNER, NAME, request(policy=POLICY | {"every": 3 * DAY}))
    assert told["current"] == others["current"]
    assert (told["rotation"]["every"], len(told["versions"])) == ("P3D", 1)
    assert host.registry.specs().keys() == {host.now.current_kid}
    monkeypatch.setattr(Steps, "add", overtaken)
    host.sets.destroy(OWNER, NAME)
    with pytest.raises(KeySetTaken):
        host.sets.put(OTHER, NAME, request())


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("method", ["find", "find_for"])
def test_a_set_that_is_destroyed_while_it_is_changed_is_made(host, monkeypatch, method, call):
    host.make()
    find, calls = getattr(KeySets, method), count(1)

    def overtaken(*arguments: Any) -> Any:
        if next(calls) == call:
            host.sets.destroy(OWNER, NAME)
        return find(*arguments)

    monkeypatch.setattr(KeySets, method, overtaken)
    told = host.sets.put(OWNER, NAME, request())
    assert host.sets.read(OWNER, NAME) == told
    assert host.registry.specs().keys() == {host.now.current_kid}


# --- Whoever dies over it ---


STEPS: Mapping[str, tuple[type, str]] = {
    "before the key is there": (Hsm, "generate"),
    "before it is a version": (Steps, "add_next"),
    "before the line is written": (AuditLog, "record"),
    "before that is noted": (Steps, "tell"),
}


def die_over_a_rotation(step: str, url: str, state_dir: str) -> None:
    """Be the worker that is killed before ``step``."""
    host = Host.of(url, opened(Config.from_env()), Path(state_dir))
    owner, name = STEPS[step]
    setattr(owner, name, killed)
    host.sets.rotation.settle()


@sqlite
@pytest.mark.parametrize("step", STEPS)
def test_what_a_killed_worker_leaves_another_one_goes_on_with(
    step, host, registry_url, environment, tmp_path, monkeypatch
):
    host.make()
    host.move(due_at=past())
    dies(environment, die_over_a_rotation, step, registry_url, str(tmp_path))
    keyset = host.settle()
    assert host.states == ["current", "next"]
    assert keyset.rotates_at >= keyset.versions[1].published_at + POLICY["publish_ahead"]
    assert [(line["step"], line["version"]) for line in host.lines] == [(1, str(keyset.next_kid))]
    monkeypatch.setattr(recovery, "GRACE", timedelta(0))
    host.keyring.recovery.settle()
    assert host.registry.specs().keys() == {version.kid for version in keyset.versions}
    assert VersionState.NEXT in {version.state for version in keyset.versions}


def unanswered(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have the next step of that ``name`` be committed, and the database lost over the answer."""
    step = getattr(Steps, name)

    def committed(*arguments: Any, **members: Any) -> None:
        monkeypatch.setattr(Steps, name, step)
        step(*arguments, **members)
        raise RegistryUnavailable

    monkeypatch.setattr(Steps, name, committed)


@pytest.mark.parametrize("policy", [POLICY, None], ids=["with a policy", "without"])
def test_a_set_that_was_committed_and_not_answered_is_whole_all_the_same(policy, host, monkeypatch):
    unanswered(monkeypatch, "add")
    with pytest.raises(RegistryUnavailable):
        host.make(request(policy=policy))
    host.make(request(policy=policy))  # as it is to be repeated
    host.settle()
    assert host.states == ["current"]
    assert sign(host)


def test_a_next_version_that_was_committed_and_not_answered_is_made_again(host, monkeypatch):
    host.make()
    unanswered(monkeypatch, "add_next")
    host.published()
    keyset = host.settle()
    assert (host.states, len(host.jwks)) == (["current", "next"], 2)
    assert keyset.rotates_at > datetime.now(UTC)
    host.move(rotates_at=past(), due_at=past())
    assert host.settle().current_kid == keyset.next_kid
    assert host.states == ["previous", "current"]


def test_a_set_that_lost_its_next_version_long_ago_goes_on(host):
    keyset = host.make()
    with host.registry._database.engine.begin() as connection:
        lost = keysets.update().values(next_kid=str(uuid4()), rotates_at=past(), due_at=None)
        connection.execute(lost)
    host.settle()
    assert host.states == ["current", "next"]
    assert host.now.current_kid == keyset.current_kid
