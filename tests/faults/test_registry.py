"""The registry locked, lost, or put back from an old copy."""

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.faults.service import Service, use
from tests.shared.command import jose_hsm
from tests.shared.waiting import PATIENCE_SECONDS, START, STATE, until

HMAC = {"kty": "oct", "alg": "HS256"}
EC = {"kty": "EC", "crv": "P-256", "alg": "ES256"}


@contextmanager
def locked(service: Service, how: str) -> Iterator[None]:
    path = service.state_dir / "registry.db"
    with closing(sqlite3.connect(path, PATIENCE_SECONDS, isolation_level=None)) as other:
        other.execute(f"BEGIN {how}")
        yield
        other.execute("ROLLBACK")


LOCKS = ("IMMEDIATE", "EXCLUSIVE")


def test_while_the_registry_is_locked_keys_are_used_and_none_is_made(service):
    key = service.create(**HMAC)
    made = service.faults.calls("C_GenerateKeyPair")  # the service makes none for itself
    for how in LOCKS:
        with locked(service, how):
            only_uses(service, key)
            assert service.faults.calls("C_GenerateKeyPair") == made
    assert use(service.api, service.create(**HMAC)) == 200


def only_uses(service: Service, key: Mapping[str, Any]) -> None:
    with ThreadPoolExecutor(2) as clients:  # each of them waits for the registry for a while
        refused = (
            clients.submit(lambda: service.api.post("/keys", EC)),
            clients.submit(lambda: service.api.delete(key["kid"])),
        )
    assert [each.result().refusal for each in refused] == 2 * [(503, "unavailable")]
    assert use(service.api, key) == 200


def test_without_its_registry_the_service_says_503_and_never_404(serve_faulty, tmp_path):
    with serve_faulty() as service:
        key = service.create(**HMAC)
        settings, state = service.settings, service.state_dir
    (tmp_path / "saved").mkdir()
    for path in state.glob("registry.db*"):
        path.rename(tmp_path / "saved" / path.name)
    with serve_faulty(settings=settings) as service:
        for _ in range(4):
            assert use(service.api, key) == 503
            assert service.api.post("/keys", HMAC).status == 503
    for path in state.glob("registry.db*"):
        path.unlink()
    for path in (tmp_path / "saved").iterdir():
        path.rename(state / path.name)
    with serve_faulty(settings=settings) as service:
        service.keys.append(key)
        service.wait_until_ready(within=START)
        service.assert_sound()


@contextmanager
def moved_away(service: Service, directory: Path) -> Iterator[None]:
    directory.mkdir()
    # The file itself goes first and comes last: nobody is to open it without its log.
    there = sorted(service.state_dir.glob("registry.db*"))
    for path in there:
        path.rename(directory / path.name)
    yield
    for path in reversed(there):
        (directory / path.name).rename(path)


def test_a_registry_that_is_moved_away_under_the_service_is_503(service, tmp_path):
    key = service.create(**HMAC)
    made = service.faults.calls("C_GenerateKeyPair")
    with moved_away(service, tmp_path / "saved"):
        refuses_all(service, key)
        assert service.faults.calls("C_GenerateKeyPair") == made
    assert use(service.api, key) == 200
    assert use(service.api, service.create(**HMAC)) == 200


def refuses_all(service: Service, key: Mapping[str, Any]) -> None:
    for _ in range(4):  # each worker, from connections that it has and from new ones
        assert use(service.api, key) == 503
        assert service.api.post("/keys", EC).refusal == (503, "unavailable")
        assert service.api.get("/keys").refusal == (503, "unavailable")


def ready(service: Service) -> str:
    return requests.get(f"{service.url}/health/ready", timeout=STATE.seconds).text


def test_where_a_mount_is_missing_no_other_registry_takes_its_place(serve_faulty, tmp_path):
    with serve_faulty() as service:
        key = service.create(**HMAC)
        settings, state = service.settings, service.state_dir
    (tmp_path / "mount").mkdir()
    away = [(path, tmp_path / "mount" / path.name) for path in state.glob("registry.db*")]
    for here, there in away:
        here.rename(there)
    refused = jose_hsm(settings, "migrate")
    assert refused.returncode == 2
    assert "the token belongs to one" in refused.stderr
    assert list(state.glob("registry.db*")) == []
    assert jose_hsm(settings, "migrate", "--new").returncode == 0
    with serve_faulty(settings=settings) as service:
        for _ in range(4):
            assert use(service.api, key) == 503
            assert service.api.post("/keys", HMAC).refusal == (503, "unavailable")
            assert service.api.get("/keys").refusal == (503, "unavailable")
        until(lambda: ": another_registry: " in ready(service))
    for path in state.glob("registry.db*"):
        path.unlink()
    for here, there in away:
        there.rename(here)
    with serve_faulty(settings=settings) as service:
        service.keys.append(key)
        service.wait_until_ready(within=START)
        assert use(service.api, key) == 200
        service.assert_sound()


def test_a_new_registry_is_believed_once_somebody_says_so(serve_faulty):
    with serve_faulty() as service:
        key = service.create(**HMAC)
        settings, state = service.settings, service.state_dir
    for path in state.glob("registry.db*"):
        path.unlink()
    assert jose_hsm(settings, "migrate", "--new").returncode == 0
    claimed = jose_hsm(settings, "claim")
    assert claimed.returncode == 0, claimed
    with serve_faulty(settings=settings) as service:
        service.wait_until_ready(within=START)
        assert use(service.api, key) == 404  # the operator says that it is lost
        assert use(service.api, service.create(**HMAC)) == 200


def test_a_registry_that_is_damaged_under_the_service_is_503(service):
    key = service.create(**HMAC)
    path = service.state_dir / "registry.db"
    with closing(sqlite3.connect(path)) as other:
        truncate = "PRAGMA wal_checkpoint(TRUNCATE)"
        until(lambda: other.execute(truncate).fetchone()[0] == 0)  # nobody was in its way
    whole = path.read_bytes()
    with path.open("r+b") as file:
        file.write(b"\xff" * 100)
    for _ in range(4):
        assert use(service.api, key) == 503
        assert service.api.post("/keys", HMAC).refusal == (503, "unavailable")
        assert service.api.get("/keys").refusal == (503, "unavailable")
        assert service.api.delete(key["kid"]).refusal == (503, "unavailable")
    with path.open("r+b") as file:
        file.write(whole[:100])
    assert use(service.api, key) == 200


def back_up(registry: Path, target: Path) -> None:
    with closing(sqlite3.connect(registry)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)


def restore(saved: Path, state: Path) -> None:
    for path in state.glob("registry.db*"):  # a log left behind would bring its rows back
        path.unlink()
    shutil.copy(saved, state / "registry.db")


def test_keys_that_an_old_registry_does_not_know_are_left_on_the_token(serve_faulty, tmp_path):
    with serve_faulty() as service:
        old = service.create(**HMAC)
        settings, state = service.settings, service.state_dir
    back_up(state / "registry.db", tmp_path / "old.db")
    with serve_faulty(settings=settings) as service:
        new = service.create(**HMAC)
    back_up(state / "registry.db", tmp_path / "new.db")
    restore(tmp_path / "old.db", state)
    with serve_faulty(settings=settings) as service:
        service.keys.append(old)
        service.wait_until_ready(within=START)
        assert use(service.api, new) == 404
        assert f"left alone): 1\n  {new['kid']}" in service.reconcile()
        service.assert_sound()
    restore(tmp_path / "new.db", state)
    with serve_faulty(settings=settings) as service:
        service.keys += [old, new]
        service.wait_until_ready(within=START)
        service.assert_sound()
