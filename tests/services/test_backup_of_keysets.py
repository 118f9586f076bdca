"""Key sets in backups: what was destroyed or revoked since does not come back."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.audit import AuditLog, since
from app.http.router import CHANGES
from app.operator import backup
from app.operator.restoration import plan, restore
from app.registry import Registry, State, VersionState, migrate
from tests.unit.test_keysets import EVENT, MOST, NAME, again, made, published


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    url = f"sqlite:///{tmp_path}/registry.db"
    migrate(url)
    registry = Registry(url, host="host")
    yield registry
    registry._database.engine.dispose()


def restored(registry: Registry, tmp_path: Path, **line: Any) -> None:
    """Restore a backup into ``registry`` after which the audit log has had that line."""
    url, log = f"sqlite:///{tmp_path}/registry.db", tmp_path / "audit.log"
    before = datetime.now(UTC)
    backup.write(tmp_path / "backup", url, mac=None)
    AuditLog(log).record(status=200, **line)
    history = since([log], before, CHANGES)
    restore(plan(tmp_path / "backup", url, history, encryptions=0), url, force=True)


def test_a_key_set_comes_back_as_it_was(registry, tmp_path):
    keyset = published(registry)
    restored(registry, tmp_path, endpoint="random.generate")
    assert again(registry) == keyset


def test_a_key_set_that_came_back_goes_on(registry, tmp_path):
    keyset = published(registry)
    restored(registry, tmp_path, endpoint="random.generate")
    now = datetime.now(UTC)
    assert registry.keysets.due(now, most_encryptions=MOST) == []
    registry.keysets.steps.rotate(again(registry), EVENT, now=now, rotates_at=None, due_at=None)
    assert again(registry).current_kid == keyset.next_kid


def test_a_key_set_that_was_destroyed_does_not_come_back(registry, tmp_path):
    kids = [str(version.kid) for version in published(registry).versions]
    restored(registry, tmp_path, endpoint="keysets.destroy", keyset=NAME, destroyed=kids)
    assert registry.keysets.find(NAME) is None
    assert registry.specs() == {}


def test_a_key_set_that_was_deleted_does_not_come_back_but_its_keys_can_be_had_back(
    registry, tmp_path
):
    keyset = published(registry)
    registry.keysets.steps.grant(keyset, "token:bob", ["sign"])
    kids = {version.kid for version in keyset.versions}
    said = {"versions": list(map(str, kids)), "destroy_at": "2999-01-01T00:00:00+00:00"}
    restored(registry, tmp_path, endpoint="keysets.destroy", keyset=NAME, **said)
    assert registry.keysets.find(NAME) is None
    assert registry.specs([State.DESTROYING]).keys() == kids
    assert [registry.keysets.name_of(kid) for kid in kids] == [None, None]
    assert (registry.grants.of(keyset.id), registry.tags.of(keyset.id)) == ({}, [])
    made(registry)  # the name is free


@pytest.mark.parametrize("endpoint", ["versions.revoke", "cli.keysets.revoke"])
def test_a_version_that_was_revoked_stays_so_and_another_one_is_due(endpoint, registry, tmp_path):
    keyset = published(registry)
    kid = str(keyset.current_kid)
    restored(registry, tmp_path, endpoint=endpoint, keyset=NAME, kid=kid, state=State.COMPROMISED)
    assert registry.find(keyset.current_kid).state is State.COMPROMISED
    assert again(registry).versions[0].state is VersionState.COMPROMISED
    due = registry.keysets.due(datetime.now(UTC), most_encryptions=MOST)
    assert [one.name for one in due] == [NAME]


@pytest.mark.parametrize(
    ("endpoint", "operations"),
    [("keysets.ungrant", []), ("keysets.grant", ["verify"])],
    ids=["all", "some"],
)
def test_what_was_granted_on_a_set_and_taken_away_since_stays_so(
    endpoint, operations, registry, tmp_path
):
    keyset = published(registry)
    for grantee in ("token:bob", "token:eve"):
        registry.keysets.steps.grant(again(registry), grantee, ["sign", "verify"])
    taken = {"grantee": "token:bob", "operations": operations}
    restored(registry, tmp_path, endpoint=endpoint, keyset=NAME, **taken)
    for kid in (keyset.id, *(version.kid for version in keyset.versions)):
        granted = registry.grants.of(kid)
        assert granted.get("token:bob", []) == operations
        assert granted["token:eve"] == ["sign", "verify"]
