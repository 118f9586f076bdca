"""Keys that can be had back: until when, and how they end, once, whoever dies over it."""

# ruff: noqa: PLR0913, PLR0917  # fixtures

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.audit import AuditLog
from app.config import Config
from app.errors import RegistryUnavailable
from app.keys import recovery
from app.keys.catalogue import Catalogue
from app.keys.janitor import Janitor
from app.keys.keyring import Keyring
from app.operator.cli.service import opened
from app.registry import LASTING, Publication, Registry, State, postponed
from app.registry.tables import keys
from app.rights import Principal, Role
from app.schemas.keys import KeyRequest
from app.schemas.labels import Labels
from hsm import CryptoFailure, Hsm, KeyNotFound, KeyRef, KeySpec, TokenUnavailable
from tests.shared.drivers import dies, killed
from tests.shared.waiting import until

OWNER = Principal("token:owner", {Role.CREATOR})
DAY = timedelta(days=1)
SPECS = {
    "secret": KeySpec(kty="oct", alg="HS256", bits=256),
    "two objects": KeySpec(kty="oct", alg="A128CBC-HS256", bits=256),
    "pair": KeySpec(kty="EC", alg="ES256", crv="P-256"),
}


@dataclass(frozen=True)
class Host:
    """A service of its own on a registry that others may share, and its audit log."""

    registry: Registry
    keyring: Keyring
    catalogue: Catalogue
    audit: Path

    @classmethod
    def of(cls, url: str, token: Hsm, state_dir: Path, name: str = "host") -> "Host":
        """Return one, whose workers share ``state_dir``."""
        registry = Registry(url, host=name)
        keyring = Keyring.of(registry, token, state_dir=state_dir)
        catalogue = Catalogue(registry, Publication(most=50))
        return cls(registry, keyring, catalogue, state_dir / "audit.log")

    def create(self, spec: KeySpec, after: timedelta | None = DAY, **labels: Any) -> UUID:
        """Make a key."""
        request = KeyRequest(spec=spec, labels=Labels(destroy_after=after, **labels))
        return UUID(self.keyring.creation.make(OWNER, request, None)["kid"])

    def deleted(self, *, ago: timedelta | None = None, **labels: Any) -> UUID:
        """Make a key and delete it; its time was over so long ``ago``."""
        kid = self.create(SPECS["secret"], **labels)
        self.keyring.creation.destroy(OWNER, str(kid))
        if ago:
            self.set(kid, destroy_at=datetime.now(UTC) - ago)
        return kid

    def set(self, kid: UUID, **values: Any) -> None:
        """Move time, in the row of a key."""
        with self.registry._database.engine.begin() as connection:
            update = keys.update().where(keys.c.kid == str(kid)).values(values)
            assert connection.execute(update).rowcount == 1

    @property
    def janitor(self) -> Janitor:
        """One that is not started."""
        return Janitor(self.keyring.recovery, AuditLog(self.audit))

    @property
    def destroyed(self) -> list[str]:
        """The kids of which the audit log says so."""
        lines = self.audit.read_text().splitlines() if self.audit.exists() else []
        return [entry["destroyed"] for entry in map(json.loads, lines) if "destroyed" in entry]


@pytest.fixture
def host(registry_url: str, token: Hsm, tmp_path: Path) -> Iterator[Host]:
    """One whose keys are on the token no longer than the test."""
    host = Host.of(registry_url, token, tmp_path)
    yield host
    for kid, spec in host.registry.specs().items():
        token.destroy(KeyRef(kid=kid, spec=spec))
    host.registry._database.engine.dispose()


def is_there(host: Host, kid: UUID) -> bool:
    """Tell whether the token has a key, or the registry anything of it."""
    return kid in host.keyring.recovery.hsm.inventory() or kid in host.registry.specs()


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_key_is_destroyed_when_its_time_is_over_and_not_before(spec, host):
    kid = host.create(spec)
    host.keyring.creation.destroy(OWNER, str(kid))
    host.janitor.settle()
    assert (host.destroyed, is_there(host, kid)) == ([], True)
    host.set(kid, destroy_at=datetime.now(UTC))
    host.janitor.settle()
    assert (host.destroyed, is_there(host, kid)) == ([str(kid)], False)
    host.janitor.settle()
    assert host.destroyed == [str(kid)]


def test_many_keys_are_destroyed_a_few_at_a_time(host, monkeypatch):
    monkeypatch.setattr(postponed, "_BATCH", 2)
    kids = {str(host.deleted(ago=timedelta(seconds=1))) for _ in range(5)}
    assert len(host.registry.postponed.overdue(others_before=datetime.now(UTC))) == 2
    host.janitor.settle()
    assert (set(host.destroyed), host.registry.specs()) == (kids, {})


def test_a_janitor_that_runs_does_so_by_itself(host):
    kid = host.deleted(after=timedelta(seconds=1))
    janitor = Janitor(host.keyring.recovery, AuditLog(host.audit), pause_seconds=0.05)
    janitor.start()
    until(lambda: not is_there(host, kid))
    janitor.stop()
    assert host.destroyed == [str(kid)]


def test_what_is_deleted_is_what_the_token_has_to_have(host, token):
    kid = host.deleted()
    missing, unknown = token.differences(host.registry.specs(LASTING))
    assert kid not in missing | unknown
    assert host.keyring.recovery.reconcile(dry_run=False).settled == []
    assert is_there(host, kid)


def test_a_key_comes_back_as_it_was_and_its_time_begins_anew(host):
    kid = host.deleted()
    for state in (State.ACTIVE, State.DEACTIVATED, State.COMPROMISED):
        host.set(kid, state_before=state)
        assert host.catalogue.read(OWNER, str(kid))["state"] is State.DESTROYING
        assert host.catalogue.restore(OWNER, str(kid))["state"] is state
        host.set(kid, destroy_at=datetime.now(UTC) - DAY)  # whatever a row says beside
        host.janitor.settle()
        assert host.registry.find(kid).state is state
        host.keyring.creation.destroy(OWNER, str(kid))
        left = host.registry.whole(kid, LASTING).destroy_at - datetime.now(UTC)
        assert timedelta(0) < left <= DAY
    assert host.destroyed == []


def test_an_expired_key_comes_back_deactivated(host):
    kid = host.deleted()
    host.set(kid, expires_at=datetime.now(UTC))
    assert host.catalogue.restore(OWNER, str(kid))["state"] is State.DEACTIVATED


def test_a_key_does_not_come_back_once_its_time_is_over(host):
    kid = host.deleted(ago=timedelta(seconds=1))
    with pytest.raises(CryptoFailure, match="The time to restore the key is over"):
        host.catalogue.restore(OWNER, str(kid))
    assert host.catalogue.read(OWNER, str(kid))["state"] is State.DESTROYING  # it is still there
    host.janitor.settle()
    for ask in (host.catalogue.restore, host.catalogue.read):
        with pytest.raises(KeyNotFound):
            ask(OWNER, str(kid))


def test_a_default_is_for_the_keys_that_say_nothing(host, token, tmp_path):
    keyring = Keyring.of(host.registry, token, state_dir=tmp_path, destroy_after=2 * DAY)
    for after, expected in ((None, 2 * DAY), (DAY, DAY), (3 * DAY, 3 * DAY)):
        kid = host.create(SPECS["secret"], after)
        keyring.creation.destroy(OWNER, str(kid))
        left = host.registry.whole(kid, LASTING).destroy_at - datetime.now(UTC)
        assert expected - DAY / 2 < left <= expected


def test_a_key_can_be_destroyed_at_once_by_who_says_so(host):
    for kid in (host.deleted(), host.create(SPECS["pair"])):
        host.keyring.creation.destroy_at_once(OWNER, str(kid))
        assert not is_there(host, kid)


def test_what_somebody_else_has_deleted_meanwhile_is_not_destroyed(host, monkeypatch):
    kid = host.create(SPECS["secret"])
    monkeypatch.setattr(Registry, "whole", lambda *_arguments: None)
    with pytest.raises(KeyNotFound):
        host.keyring.creation.destroy(OWNER, str(kid))
    assert is_there(host, kid)


def test_an_alias_is_free_when_the_key_is_destroyed(host):
    kid = host.deleted(ago=timedelta(seconds=1), alias="mine")
    host.janitor.settle()
    assert not is_there(host, kid)
    host.create(SPECS["secret"], alias="mine")


def test_a_deleted_key_counts_for_its_owner_and_keeps_its_place_in_the_set(host, token, tmp_path):
    one = Publication(most=1, takes_new=True)
    few = Keyring.of(
        host.registry, token, state_dir=tmp_path, publication=one, keys_per_owner=2
    ).creation
    request = KeyRequest(spec=SPECS["pair"], labels=Labels(destroy_after=DAY))
    first = few.make(OWNER, request, None)
    few.destroy(OWNER, first["kid"])
    assert host.registry.tags.published(one) == []
    second = few.make(OWNER, request, None)
    assert (first["published"], second["published"]) == (True, False)
    assert host.registry.census.owned_by(OWNER, at_most=1_000_000) == 2
    host.catalogue.restore(OWNER, first["kid"])
    assert [str(key.kid) for key in host.registry.tags.published(one)] == [first["kid"]]


def test_while_the_token_is_away_a_key_is_deleted_and_none_destroyed(host, monkeypatch):
    kid = host.create(SPECS["secret"])

    def away(*_arguments: object) -> None:
        raise TokenUnavailable("the token is away")

    monkeypatch.setattr(Hsm, "offers", away)
    host.keyring.creation.destroy(OWNER, str(kid))
    host.set(kid, destroy_at=datetime.now(UTC))
    host.janitor.settle()
    assert host.registry.whole(kid, LASTING).state is State.DESTROYING
    monkeypatch.undo()
    host.janitor.settle()
    assert host.destroyed == [str(kid)]


# --- Several ---


def test_of_workers_and_hosts_one_destroys_each_key(host, registry_url, token, tmp_path):
    (tmp_path / "other").mkdir()
    workers = [
        host,
        Host.of(registry_url, token, tmp_path),
        Host.of(registry_url, token, tmp_path / "other", "other"),
    ]
    kids = {host.deleted(ago=timedelta(seconds=1)) for _ in range(12)}
    together = threading.Barrier(len(workers))

    def destroy(worker: Host) -> list[UUID]:
        together.wait()
        recorded: list[UUID] = []
        assert worker.keyring.recovery.destroy_overdue(recorded.append) == recorded
        return recorded

    with ThreadPoolExecutor(len(workers)) as threads:
        destroyed = [kid for found in threads.map(destroy, workers) for kid in found]
    assert sorted(destroyed) == sorted(kids)
    assert not any(is_there(host, kid) for kid in kids)


def test_a_wrapping_key_that_may_be_on_another_token_is_left_to_its_host_for_minutes(
    host, registry_url, token, tmp_path
):
    kid = host.keyring.imports.wrapping_key(OWNER)["kid"]
    (tmp_path / "other").mkdir()
    other = Host.of(registry_url, token, tmp_path / "other", "other")
    host.set(kid, destroy_at=datetime.now(UTC) - timedelta(minutes=1))
    other.janitor.settle()
    assert is_there(host, kid)
    host.set(kid, destroy_at=datetime.now(UTC) - recovery.OTHER_HOST_GRACE)
    other.janitor.settle()
    assert not is_there(host, kid)


def test_of_two_who_restore_or_destroy_a_key_one_has_done_it(host):
    kid = host.deleted()
    postponed = host.registry.postponed
    assert not postponed.mark_destroyed(kid)
    assert [postponed.end(kid), postponed.end(kid)] == [True, False]
    later = datetime.now(UTC) + DAY
    assert [postponed.begin(kid, later), postponed.begin(kid, later)] == [True, False]
    host.set(kid, destroy_at=datetime.now(UTC))
    assert not postponed.end(kid)
    assert [postponed.mark_destroyed(kid), postponed.mark_destroyed(kid)] == [True, False]
    assert not postponed.end(kid)


# --- Whoever dies or fails over it ---


STEPS = {
    "before the objects go": (Hsm, "destroy"),
    "before the line is written": (AuditLog, "record"),
    "before the row goes": (Registry, "remove"),
}


def die_over_a_destruction(step: str, url: str, state_dir: str) -> None:
    """Be the worker that is killed before ``step``."""
    host = Host.of(url, opened(Config.from_env()), Path(state_dir))
    owner, name = STEPS[step]
    setattr(owner, name, killed)
    host.janitor.settle()


@pytest.mark.parametrize("registry_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("step", STEPS)
def test_what_a_killed_worker_leaves_another_one_ends(
    step, host, registry_url, environment, tmp_path, monkeypatch
):
    kid = host.deleted(ago=timedelta(seconds=1), alias="mine")
    dies(environment, die_over_a_destruction, step, registry_url, str(tmp_path))
    assert kid in host.registry.specs()
    for ask in (host.catalogue.restore, host.catalogue.read, host.keyring.creation.destroy):
        for name in (str(kid), "mine"):
            with pytest.raises(KeyNotFound):
                ask(OWNER, name)
    host.janitor.settle()
    assert kid in host.registry.specs()  # he might be at it still
    monkeypatch.setattr(recovery, "GRACE", timedelta(0))
    host.janitor.settle()
    assert not is_there(host, kid)
    assert set(host.destroyed) == {str(kid)}


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (Hsm, "destroy", TokenUnavailable("the token does not answer")),
        (AuditLog, "record_all", OSError("no room")),
        (Registry, "remove", RegistryUnavailable()),
    ],
    ids=STEPS,
)
def test_what_fails_over_one_key_is_done_again_and_keeps_no_other_one(
    owner, name, error, host, monkeypatch
):
    kids = {str(host.deleted(ago=timedelta(seconds=1))) for _ in range(2)}
    broken = getattr(owner, name)
    failures = iter([error])

    def fail_once(*arguments: Any, **members: Any) -> Any:
        for failure in failures:
            raise failure
        return broken(*arguments, **members)

    monkeypatch.setattr(owner, name, fail_once)
    host.janitor.settle()
    assert len(host.registry.specs()) == 2
    host.janitor.settle()
    assert len(host.registry.specs()) == 1
    monkeypatch.setattr(recovery, "GRACE", timedelta(0))
    host.janitor.settle()
    assert host.registry.specs() == {}
    assert set(host.destroyed) == kids


def marked(host: Host) -> set[UUID]:
    """Make keys that somebody has been killed over who was about to destroy them."""
    kids = {host.create(SPECS["secret"], None) for _ in range(3)}
    assert all(host.registry.mark_destroyed(kid) for kid in kids)
    return kids


def overdue(host: Host) -> set[UUID]:
    """Make keys that were deleted, and whose time is over."""
    return {host.deleted(ago=timedelta(seconds=1)) for _ in range(3)}


@pytest.mark.parametrize("begin", [marked, overdue])
def test_a_key_that_the_token_does_not_let_go_keeps_no_other_one(begin, host, monkeypatch):
    refused, *others = sorted(begin(host))
    destroy = Hsm.destroy

    def refuse(token: Hsm, ref: KeyRef) -> None:
        if ref.kid == refused:
            raise CryptoFailure("The token does not permit this operation with this key")
        destroy(token, ref)

    monkeypatch.setattr(recovery, "GRACE", timedelta(0))
    with monkeypatch.context() as fault:
        fault.setattr(Hsm, "destroy", refuse)
        host.janitor.settle()
        assert host.registry.specs().keys() == {refused}
        assert host.keyring.recovery.reconcile(dry_run=False).settled == []
    host.janitor.settle()
    assert host.registry.specs() == {}
    assert set(host.destroyed) == {str(refused), *map(str, others)}
