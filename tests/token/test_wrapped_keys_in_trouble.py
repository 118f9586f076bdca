"""Keys that the registry keeps: whoever dies over one leaves nothing, and a lost token no harm."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from pkcs11 import Attribute
from sqlalchemy.exc import OperationalError

from app.config import Config
from app.errors import RegistryUnavailable
from app.operator.cli.service import opened
from app.registry import Registry, State
from app.registry.rows import additions
from app.schemas.keys import KeyRequest
from hsm import (
    KEY_MANAGEMENTS,
    Hsm,
    HsmError,
    KeyRef,
    KeySpec,
    Storage,
    TokenUnavailable,
    UnsupportedAlgorithm,
    wrap_key,
)
from hsm.cryptoki.session import Session
from hsm.life.token import Token
from hsm.messages import TRANSFER_KEY
from hsm.storage.transfer import Parcel
from hsm.storage.wrapped_store import WrappedStore
from tests.shared import drivers
from tests.shared.drivers import killed
from tests.shared.waiting import until
from tests.token.test_destroy_after import OWNER, Host
from tests.token.test_wrapped_store import done, number_of_objects

pytestmark = pytest.mark.softhsm  # no other token of the tests has a key-encryption key

ES256 = KeySpec(kty="EC", alg="ES256", crv="P-256")
GENERAL_ERROR, DEVICE_MEMORY, DEVICE_REMOVED = 0x05, 0x31, 0x32


@pytest.fixture
def host(registry_url: str, token: Hsm, tmp_path: Path) -> Iterator[Host]:
    """A service on a registry of its own; nothing is unwrapped yet."""
    token.keeping.forget(token.keeping.held())
    host = Host.of(registry_url, token, tmp_path)
    yield host
    token.keeping.forget(list(host.registry.specs()))
    host.registry._database.engine.dispose()


on_sqlite = pytest.mark.parametrize("registry_url", ["sqlite"], indirect=True)


def make(host: Host, count: int | None = None) -> list[UUID]:
    request = KeyRequest(spec=ES256, storage=Storage.WRAPPED, count=count)
    made = host.keyring.imports.create(OWNER, request)
    return [UUID(key["kid"]) for key in made.get("keys", [made])]


def sign(host: Host, kid: UUID) -> bytes:
    key = host.registry.find(kid)
    assert key is not None
    return host.keyring.recovery.hsm.sign(key.ref, "ES256", b"data")


def test_several_are_there_by_one_commit_or_not_at_all(host, token, monkeypatch):
    before = number_of_objects(token)

    def fail(*_arguments: Any) -> None:
        raise OperationalError("", {}, Exception())

    with monkeypatch.context() as patched:
        patched.setattr(additions, "_publish", fail)
        with pytest.raises(RegistryUnavailable):
            make(host, 3)
    assert host.registry.specs() == {}
    assert number_of_objects(token) == before
    kids = make(host, 3)
    assert host.registry.specs().keys() == set(kids)
    assert all(sign(host, kid) for kid in kids)


@on_sqlite
def test_what_may_have_been_committed_is_taken_back(host, monkeypatch):
    insert_all = Registry.insert_all

    def lose_the_answer(*arguments: Any, **named: Any) -> None:
        insert_all(*arguments, **named)
        raise RegistryUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "insert_all", lose_the_answer)
        with pytest.raises(RegistryUnavailable):
            make(host, 2)
    assert host.registry.specs() == {}


def test_what_is_taken_back_is_gone(host):
    one, two = make(host, 2)
    sign(host, one)
    host.keyring.creation.take_back(one)
    assert host.registry.specs().keys() == {two}
    assert one not in host.keyring.recovery.hsm.keeping.held()


@on_sqlite
@pytest.mark.parametrize("function", ["C_GenerateKeyPair", "C_WrapKey"])
@pytest.mark.parametrize("value", [GENERAL_ERROR, DEVICE_REMOVED])
def test_what_the_token_does_not_finish_leaves_nothing(host, token, chaos, function, value):
    before = number_of_objects(token)
    chaos.fail_own(function, value)
    with pytest.raises((HsmError, TokenUnavailable)):
        make(host)
    chaos.heal()
    until(lambda: token.reason is None)
    assert host.registry.specs() == {}
    until(lambda: number_of_objects(token) == before)
    (kid,) = make(host)
    assert sign(host, kid)


@on_sqlite
def test_one_failure_of_unwrapping_is_tried_again(host, chaos):
    (kid,) = make(host)
    chaos.fail_own("C_UnwrapKey", GENERAL_ERROR, times=1)
    assert sign(host, kid)


def test_a_key_encryption_key_of_which_a_half_has_come_in_leaves_nothing(token, chaos):
    alg, public = token.keeping.prepare_import()
    encrypting, sealing = (wrap_key(public, KEY_MANAGEMENTS[alg], os.urandom(32)) for _ in range(2))

    def seals(_token: Token, session: Session) -> int:
        return len(session.find({Attribute.LABEL: "jose-hsm:seal"}))

    before = done(token, seals)

    def unwrap(original: Any, *words: int) -> int:
        is_last = chaos.calls["C_UnwrapKey"] % 4 == 0  # each half, and what it is wrapped under
        return DEVICE_MEMORY if is_last else int(original(*words))

    chaos.replace_own("C_UnwrapKey", unwrap)
    with pytest.raises(TokenUnavailable):
        token.keeping.import_kek(
            Parcel(kek=uuid4(), encrypting=encrypting, sealing=sealing), extractable=False
        )
    chaos.heal()
    assert done(token, seals) == before
    token.destroy(KeyRef(kid=TRANSFER_KEY, spec=KeySpec(kty="RSA", alg=alg)))


def test_a_key_encryption_key_is_exported_only_by_what_the_token_itself_wraps_by(token):
    public = rsa.generate_private_key(65537, 2048).public_key()
    with pytest.raises(UnsupportedAlgorithm, match="does not wrap by it"):
        token.keeping.export_kek("RSA-OAEP-256", public)


@on_sqlite
def test_a_lost_token_comes_back_and_unwraps_again(host, token, monkeypatch):
    (kid,) = make(host)
    sign(host, kid)
    epoch = token.state.epoch
    looks = iter([False])  # and well ever after, however long we are kept from going on
    monkeypatch.setattr(token._connection, "_is_well", lambda **_: next(looks, True))
    token._connection.suspect()
    until(lambda: token.state.epoch > epoch)
    assert token.keeping.held() == frozenset()
    assert sign(host, kid)


@on_sqlite
def test_a_row_of_before_its_destruction_is_the_key_still_and_no_other(host):
    """What a backup means: the blob is the key, for whoever has the key-encryption key."""
    (kid,) = make(host)
    key = host.registry.whole(kid)
    assert key is not None
    host.keyring.creation.destroy(OWNER, str(kid))
    assert host.registry.find(kid) is None
    host.registry.insert(replace(key, state=State.ACTIVE))
    assert sign(host, kid)


@on_sqlite
def test_what_others_have_ended_is_wiped_by_the_janitor(host, token):
    kids = make(host, 3)
    for kid in kids:
        sign(host, kid)
    other = Registry(host.registry._database.engine.url.render_as_string(), host="other")
    other.mark_destroyed(kids[0])
    key = other.whole(kids[1])
    assert key is not None
    other.change(key, state=State.DEACTIVATED)
    host.janitor.settle()
    assert token.keeping.held() & set(kids) == {kids[2]}
    other._database.engine.dispose()


# --- Killed ---


def _after(method: Any) -> Any:
    def act(*arguments: Any, **named: Any) -> None:
        method(*arguments, **named)
        killed()

    return act


STEPS: dict[str, tuple[Any, str, Any, int]] = {
    "before it is made": (WrappedStore, "make", killed, 0),
    "before it is wrapped": (WrappedStore, "_wrapped", killed, 0),
    "between wrapping and commit": (WrappedStore, "make", _after(WrappedStore.make), 0),
    "before the commit": (additions, "_publish", killed, 0),
    "after the commit": (Registry, "insert_all", _after(Registry.insert_all), 1),
}
"""Who is killed where, and how many keys there are then."""


def die(step: str, url: str, state_dir: str) -> None:
    """Be the worker that is killed at ``step``, making a key."""
    host = Host.of(url, opened(Config.from_env()), Path(state_dir))
    owner, name, method, _ = STEPS[step]
    setattr(owner, name, method)
    make(host)


@pytest.fixture
def dies(environment: Mapping[str, str], registry_url: str, tmp_path: Path) -> Any:
    """What has another worker of the host die."""

    def dies(step: str) -> None:
        drivers.dies(environment, die, step, registry_url, str(tmp_path))

    return dies


@on_sqlite
@pytest.mark.parametrize("step", STEPS)
def test_whoever_is_killed_leaves_a_whole_key_or_none(step, host, token, dies):
    before = number_of_objects(token)
    dies(step)
    kids = list(host.registry.specs())
    assert len(kids) == STEPS[step][3]
    assert all(sign(host, kid) for kid in kids)
    assert number_of_objects(token) == before + len(kids)  # what has just been unwrapped
    found = host.keyring.recovery.reconcile(dry_run=True)
    assert (found.settled, found.missing) == ([], [])
