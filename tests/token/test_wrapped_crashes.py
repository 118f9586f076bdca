"""Keys that come in wrapped: whoever dies over one leaves nothing that anybody could use."""

# ruff: noqa: PLR0913, PLR0917  # fixtures

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from app.config import Config
from app.keys import recovery
from app.keys.phases.two_phases import TwoPhases
from app.operator.cli.service import opened
from app.registry import Registry, State
from app.registry.postponed import Postponed
from app.registry.rows import additions
from app.schemas.keys import CreateKeyRequest
from hsm import Hsm, KeyNotFound, KeyRef, Storage
from hsm.cryptoki.handles import Key
from hsm.importing import unwrapping, wrapped_imports
from hsm.importing.wrapped_imports import WrappedImports
from hsm.storage.token_store import TokenStore
from hsm.storage.wrapped_store import WrappedStore
from tests.http.test_wrapped_imports import body_of, der, public_of, wrapped_for
from tests.shared import drivers
from tests.shared.drivers import killed
from tests.token.test_destroy_after import OWNER, Host

pytestmark = pytest.mark.usefixtures("softhsm")

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def host(registry_url: str, token: Hsm, tmp_path: Path, monkeypatch: Any) -> Iterator[Host]:
    """A service on a registry of its own, with wrapping keys that are made thirty times as fast."""
    monkeypatch.setattr("hsm.importing.wrapped_imports._BITS", 1024)
    host = Host.of(registry_url, token, tmp_path)
    yield host
    for kid, spec in host.registry.specs().items():
        token.destroy(KeyRef(kid=kid, spec=spec))
    host.registry._database.engine.dispose()


def wrapping_key(host: Host) -> dict[str, Any]:
    """A wrapping key, as its owner is told of it."""
    made = host.keyring.imports.wrapping_key(OWNER)
    return made | {"kid": str(made["kid"]), "expires": None}


def body_for(wrapping: Mapping[str, Any]) -> dict[str, Any]:
    octets = wrapped_for(wrapping, der(KEY))
    return body_of(wrapping, octets, **public_of(KEY), alg="ES256")


def bring_in(host: Host, body: Mapping[str, Any]) -> UUID:
    return UUID(host.keyring.imports.create(OWNER, CreateKeyRequest().load(body))["kid"])


def kept(host: Host, before: Mapping[UUID, Any]) -> tuple[set[UUID], set[UUID]]:
    """The rows, and the keys of the token that there were not ``before``."""
    found = host.keyring.recovery.hsm.inventory()
    return set(host.registry.specs()), found.keys() - before.keys()


@pytest.fixture
def before(token: Hsm) -> Mapping[UUID, Any]:
    """The keys of the token."""
    return token.inventory()


# --- Time ---


def test_a_wrapping_key_that_nobody_uses_is_gone_after_a_day(host, before):
    kid = UUID(wrapping_key(host)["kid"])
    host.janitor.settle()
    assert kept(host, before) == ({kid}, {kid})
    left = host.registry.whole(kid, (State.WRAPPING,)).destroy_at - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(hours=24)
    host.set(kid, destroy_at=datetime.now(UTC))
    host.janitor.settle()
    assert kept(host, before) == (set(), set())
    assert host.destroyed == [str(kid)]


def test_a_wrapping_key_whose_time_is_over_imports_nothing(host, before):
    wrapping = wrapping_key(host)
    host.set(UUID(wrapping["kid"]), destroy_at=datetime.now(UTC))
    with pytest.raises(KeyNotFound):
        bring_in(host, body_for(wrapping))
    host.janitor.settle()
    assert kept(host, before) == (set(), set())


# --- Several at once ---


@pytest.mark.parametrize("storage", Storage)
def test_of_imports_by_one_wrapping_key_one_succeeds(storage, host, before):
    body = body_for(wrapping_key(host)) | {"storage": storage}
    together = threading.Barrier(3)

    def attempt(_: int) -> UUID | None:
        together.wait()
        with suppress(KeyNotFound):
            return bring_in(host, body)
        return None

    with ThreadPoolExecutor(3) as threads:
        imported = [kid for kid in threads.map(attempt, range(3)) if kid]
    assert len(imported) == 1
    on_token = imported if storage is Storage.TOKEN else []
    assert kept(host, before) == (set(imported), set(on_token))


# --- Whoever dies over it ---


def _after(original: Callable[..., Any]) -> Callable[..., Any]:
    """Be killed once it is done."""

    def method(*arguments: Any, **named: Any) -> None:
        original(*arguments, **named)
        killed()

    return method


def _storing(original: Callable[..., Any]) -> Callable[..., Any]:
    """Be killed before an unwrapped object is stored; those that live with a session are made."""

    def method(*arguments: Any, **named: Any) -> Any:
        return killed() if named.get("store") else original(*arguments, **named)

    return method


MAKING: dict[str, tuple[Any, str, Any]] = {
    "before the wrapping key is made": (Hsm, "generate", killed),
    "when the wrapping key is made": (Hsm, "generate", _after(Hsm.generate)),
    "before the wrapping key is told": (Postponed, "begin_wrapping", killed),
}
UNUSED: dict[str, tuple[Any, str, Any]] = {
    "before the key is unwrapped": (WrappedImports, "take", killed),
    "while the key is tried": (unwrapping, "_works", killed),
    "before the key is stored": (TokenStore, "keep_unwrapped", killed),
    "between the halves": (Key, "unwrap_key", _storing(Key.unwrap_key)),
    "when the key is stored": (TokenStore, "keep_unwrapped", _after(TokenStore.keep_unwrapped)),
    "before the row is active": (Postponed, "end_wrapping", killed),
}
USED: dict[str, tuple[Any, str, Any]] = {
    "when the row is active": (Postponed, "end_wrapping", _after(Postponed.end_wrapping)),
    "before the wrapping key goes": (TwoPhases, "finish", killed),
    "before the row of the wrapping key goes": (Registry, "remove", killed),
}
BEFORE_THE_COMMIT: dict[str, tuple[Any, str, Any]] = {
    "before the key is encrypted": (WrappedStore, "keep_unwrapped", killed),
    "when the key is encrypted": (
        WrappedStore,
        "keep_unwrapped",
        _after(WrappedStore.keep_unwrapped),
    ),
    "before the wrapping key is marked": (additions, "spend", killed),
}
AFTER_THE_COMMIT: dict[str, tuple[Any, str, Any]] = {
    "when the row is there": (Registry, "insert_all", _after(Registry.insert_all)),
    "before the wrapping key goes": (TwoPhases, "finish", killed),
}
_STEPS: dict[str, tuple[Any, str, Any]] = (
    MAKING | UNUSED | USED | BEFORE_THE_COMMIT | AFTER_THE_COMMIT
)


def die(step: str, url: str, state_dir: str, body: Mapping[str, Any] | None) -> None:
    """Be the worker that is killed at ``step``, making a wrapping key or importing ``body``."""
    wrapped_imports._BITS = 1024  # type: ignore[misc]  # of this process, as of the host
    host = Host.of(url, opened(Config.from_env()), Path(state_dir))
    host.keyring.recovery.hsm.imports.wrapping_spec()  # has been tried
    owner, name, method = _STEPS[step]
    setattr(owner, name, method)
    if body is None:
        host.keyring.imports.wrapping_key(OWNER)
    else:
        bring_in(host, body)


@pytest.fixture
def dies(environment: Mapping[str, str], registry_url: str, tmp_path: Path) -> Any:
    """What has another worker of the host die."""

    def dies(step: str, body: Mapping[str, Any] | None = None) -> None:
        drivers.dies(environment, die, step, registry_url, str(tmp_path), body)

    return dies


def settle(host: Host, monkeypatch: Any) -> None:
    """Let the janitor believe that whoever began something is dead."""
    monkeypatch.setattr(recovery, "GRACE", timedelta(0))
    host.janitor.settle()


kills = pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.long)])
on_sqlite = pytest.mark.parametrize("registry_url", ["sqlite"], indirect=True)


@on_sqlite
@kills
@pytest.mark.parametrize("step", MAKING)
def test_wrapping_keys_of_which_nobody_was_told_are_cleared_away(
    step, kills, host, before, dies, monkeypatch
):
    for _ in range(kills):
        dies(step)
    rows, _ = kept(host, before)
    assert len(rows) == kills
    assert [host.registry.whole(kid, (State.WRAPPING,)) for kid in rows] == [None] * kills
    settle(host, monkeypatch)
    assert kept(host, before) == (set(), set())


@on_sqlite
@kills
@pytest.mark.parametrize("step", UNUSED)
def test_what_was_not_imported_is_cleared_away_and_can_be_imported_still(
    step, kills, host, before, dies, monkeypatch
):
    wrapping = wrapping_key(host)
    body = body_for(wrapping)
    for _ in range(kills):
        dies(step, body)
    rows = kept(host, before)[0] - {UUID(wrapping["kid"])}
    assert len(rows) == kills
    assert [host.registry.find(kid) for kid in rows] == [None] * kills
    settle(host, monkeypatch)
    assert kept(host, before) == ({UUID(wrapping["kid"])}, {UUID(wrapping["kid"])})
    imported = bring_in(host, body)
    assert kept(host, before) == ({imported}, {imported})


@on_sqlite
@kills
@pytest.mark.parametrize("step", USED)
def test_what_was_imported_is_whole_and_the_wrapping_key_goes(
    step, kills, host, before, dies, monkeypatch
):
    bodies = [body_for(wrapping_key(host)) for _ in range(kills)]
    for body in bodies:
        dies(step, body)
    settle(host, monkeypatch)
    rows, objects = kept(host, before)
    assert len(rows) == kills
    assert objects == rows
    for kid in rows:
        assert host.keyring.recovery.hsm.works(host.registry.find(kid).ref)
    for body in bodies:
        with pytest.raises(KeyNotFound):
            bring_in(host, body)


# --- Into the registry, by one commit ---


@on_sqlite
@pytest.mark.parametrize("step", BEFORE_THE_COMMIT)
def test_what_the_registry_was_to_keep_leaves_nothing_and_can_be_imported_still(
    step, host, before, dies
):
    wrapping = wrapping_key(host)
    body = body_for(wrapping) | {"storage": "wrapped"}
    dies(step, body)
    assert kept(host, before) == ({UUID(wrapping["kid"])}, {UUID(wrapping["kid"])})
    imported = bring_in(host, body)
    assert kept(host, before) == ({imported}, set())


@on_sqlite
@pytest.mark.parametrize("step", AFTER_THE_COMMIT)
def test_what_the_registry_keeps_is_whole_and_the_wrapping_key_goes(
    step, host, before, dies, monkeypatch
):
    body = body_for(wrapping_key(host)) | {"storage": "wrapped"}
    dies(step, body)
    settle(host, monkeypatch)
    rows, objects = kept(host, before)
    assert (len(rows), objects) == (1, set())
    for kid in rows:
        assert host.keyring.recovery.hsm.works(host.registry.find(kid).ref)
    with pytest.raises(KeyNotFound):
        bring_in(host, body)
