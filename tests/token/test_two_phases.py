"""Creation and destruction in two phases: whatever fails, nobody reaches half a key."""

# ruff: noqa: PLR0913, PLR0917  # fixtures

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pkcs11 import Attribute, ObjectClass

from app.config import Config
from app.errors import RegistryUnavailable
from app.keys import recovery
from app.keys.janitor import Janitor
from app.keys.recovery import Recovery
from app.registry import Registry, migrate
from app.registry.databases.engines import engine_of
from app.registry.tables import keys
from app.service import service_of
from hsm import CryptoFailure, Hsm, KeyRef, KeySpec, TokenUnavailable, file_lock
from hsm.life.work import Errand
from scripts.throwaway import ROOT, make_token
from tests.shared.api import b64u
from tests.shared.command import jose_hsm
from tests.shared.refs import new_ref
from tests.shared.waiting import CHANGE, PATIENCE_SECONDS, RECONCILIATION, until

UNAVAILABLE = (503, "unavailable")
NOT_FOUND = (404, "not_found")

AES = {"kty": "oct", "alg": "A256GCM"}
TWO_OBJECTS = {"kty": "oct", "alg": "A128CBC-HS256"}
PAIR = {"kty": "EC", "crv": "P-256"}
IMPORTED_SECRET = {"kty": "oct", "alg": "HS256", "k": b64u(bytes(range(32)))}
IMPORTED_PAIR = {"kty": "EC", "crv": "P-256", "d": b64u(bytes(31) + b"\x07")}


def _before(error: Exception) -> Callable[..., Any]:
    """A method that fails before it does anything."""

    def method(*_args: Any, **_kwargs: Any) -> Any:
        raise error

    return method


def _after(original: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    """A method that does what it does, and fails then."""

    def method(*args: Any, **kwargs: Any) -> Any:
        original(*args, **kwargs)
        raise error

    return method


@pytest.fixture
def keyring(application: Any) -> Any:
    """The keyring of this process."""
    return service_of(application).keyring


class Contents:
    """What registry and token hold beyond what they held when it was made."""

    def __init__(self, application: Any) -> None:
        self._token = service_of(application).hsm
        self.registry = service_of(application).registry
        self._before = frozenset(self.registry.specs()), frozenset(self._token.inventory())

    @property
    def rows(self) -> frozenset[UUID]:
        """Kids of new rows."""
        return frozenset(self.registry.specs()) - self._before[0]

    @property
    def objects(self) -> frozenset[UUID]:
        """Kids of new objects."""
        return frozenset(self._token.inventory()) - self._before[1]


@pytest.fixture
def new(application: Any) -> Contents:
    """What this test has added."""
    return Contents(application)


TOKEN_FAILS = TokenUnavailable("the token does not answer")
STEPS = {
    "the row is not written": (Registry, "insert_all", _before(RegistryUnavailable())),
    "the row may have been written": (
        Registry,
        "insert_all",
        _after(Registry.insert_all, RegistryUnavailable()),
    ),
    "the row is not activated": (Registry, "activate_all", _before(RegistryUnavailable())),
    "the row may have been activated": (
        Registry,
        "activate_all",
        _after(Registry.activate_all, RegistryUnavailable()),
    ),
    "nothing is generated": (Hsm, "generate", _before(TOKEN_FAILS)),
    "the token is lost after generating": (Hsm, "generate", _after(Hsm.generate, TOKEN_FAILS)),
    "a bug shows after generating": (Hsm, "generate", _after(Hsm.generate, ValueError("bug"))),
    "no secret is imported": (Hsm, "import_key", _before(TOKEN_FAILS)),
    "the token is lost after importing a secret": (
        Hsm,
        "import_key",
        _after(Hsm.import_key, TOKEN_FAILS),
    ),
    "the token is lost after importing a pair": (
        Hsm,
        "import_key",
        _after(Hsm.import_key, TOKEN_FAILS),
    ),
    "the imported key cannot be tried": (Hsm, "works", _before(TOKEN_FAILS)),
    "the imported key does not work": (Hsm, "works", lambda *_: False),
}
FAILURES = [
    (step, body)
    for step, bodies in {
        "the row is not written": (AES, PAIR, IMPORTED_PAIR),
        "the row is not activated": (AES, PAIR, IMPORTED_SECRET, IMPORTED_PAIR),
        "the row may have been activated": (AES, PAIR),
        "nothing is generated": (AES, PAIR),
        "the token is lost after generating": (AES, PAIR, {"kty": "RSA"}),
        "a bug shows after generating": (AES, PAIR),
        "no secret is imported": (IMPORTED_SECRET,),
        "the token is lost after importing a secret": (IMPORTED_SECRET,),
        "the token is lost after importing a pair": (IMPORTED_PAIR,),
        "the imported key cannot be tried": (IMPORTED_SECRET, IMPORTED_PAIR),
        "the imported key does not work": (IMPORTED_SECRET, IMPORTED_PAIR),
    }.items()
    for body in bodies
]
STATUSES = {"the imported key does not work": 400, "a bug shows after generating": 500}


@pytest.mark.parametrize(
    ("step", "body"), FAILURES, ids=lambda value: value if isinstance(value, str) else value["kty"]
)
def test_a_creation_that_fails_leaves_nothing(step, body, new, local, monkeypatch):
    with monkeypatch.context() as fault:
        fault.setattr(*STEPS[step])
        assert local.post("/keys", body).status == STATUSES.get(step, 503)
    assert (new.rows, new.objects) == (frozenset(), frozenset())


@pytest.mark.parametrize(
    "step",
    ["the row is not activated", "the row may have been activated", "nothing is generated"],
)
def test_a_creation_that_fails_can_be_repeated(step, local, monkeypatch):
    once = {"Idempotency-Key": str(uuid4())}
    with monkeypatch.context() as fault:
        fault.setattr(*STEPS[step])
        assert local.post("/keys", AES, headers=once).refusal == UNAVAILABLE
    made = local.post("/keys", AES, headers=once)
    assert made.status == 200, made
    assert local.delete(made.body["kid"]).status == 204


@pytest.mark.parametrize(
    ("owner", "name", "wrap"),
    [
        (Hsm, "unwrap", _before),
        (Hsm, "unwrap", lambda error: _after(Hsm.unwrap, error)),
        (Registry, "activate_all", _before),
    ],
    ids=["before", "after", "activation"],
)
def test_an_unwrapping_that_fails_leaves_nothing(
    owner, name, wrap, local, application, monkeypatch
):
    rsa = local.shared(kty="RSA", alg="RSA-OAEP")["kid"]
    jwe = local.ok("/encrypt", {"kid": rsa, "alg": "RSA-OAEP", "enc": "A256GCM", "data": ""})
    new = Contents(application)
    with monkeypatch.context() as fault:
        error = TOKEN_FAILS if owner is Hsm else RegistryUnavailable()
        fault.setattr(owner, name, wrap(error))
        assert local.post("/keys/unwrap", jwe).refusal == UNAVAILABLE
    assert (new.rows, new.objects) == (frozenset(), frozenset())


def test_a_padding_that_is_bad_leaves_nothing(local, application):
    rsa = local.shared(kty="RSA", alg="RSA-OAEP")["kid"]
    jwe = local.ok("/encrypt", {"kid": rsa, "alg": "RSA-OAEP", "enc": "A256GCM", "data": ""})
    new = Contents(application)
    bad = jwe | {"encrypted_key": b64u(bytes(256))}
    assert local.post("/keys/unwrap", bad).refusal == (422, "decryption_failed")
    assert (new.rows, new.objects) == (frozenset(), frozenset())


def _assert_unreachable(local: Any, kid: str) -> None:
    for path, body in (
        ("/encrypt", {"kid": kid, "alg": "dir", "enc": "A256GCM", "data": ""}),
        ("/sign", {"kid": kid, "alg": "ES256", "data": ""}),
        ("/mac", {"kid": kid, "alg": "HS256", "data": ""}),
    ):
        assert local.post(path, body).refusal == NOT_FOUND
    assert local.delete(kid).refusal == NOT_FOUND


BODIES = [AES, TWO_OBJECTS, PAIR, IMPORTED_SECRET, IMPORTED_PAIR]


@pytest.fixture(
    params=BODIES, ids=["secret", "two-objects", "pair", "imported-secret", "imported-pair"]
)
def pending(request: Any, new: Contents, local: Any, monkeypatch: Any) -> UUID:
    """The kid of a key whose creation and whose undoing have both failed."""
    with monkeypatch.context() as fault:
        fault.setattr(Registry, "activate_all", _before(RegistryUnavailable()))
        fault.setattr(Hsm, "destroy", _before(TOKEN_FAILS))
        assert local.post("/keys", request.param).refusal == UNAVAILABLE
    (kid,) = new.rows
    assert new.objects == {kid}
    return kid


def test_a_creation_that_cannot_be_undone_is_reachable_by_nobody(pending, local, keyring):
    _assert_unreachable(local, str(pending))
    keyring.recovery.reconcile(dry_run=False)


def test_reconcile_undoes_a_creation_that_could_not_be_undone(pending, new, keyring):
    assert pending in keyring.recovery.reconcile(dry_run=False).settled
    assert (new.rows, new.objects) == (frozenset(), frozenset())


@pytest.fixture
def aged(config: Config, keyring: Any, monkeypatch: Any) -> Iterator[Callable[[UUID], None]]:
    """Make a row look as if nobody had touched it for two minutes.

    Its host is this process alone from then on: the janitor of no other service takes it.
    """
    engine = engine_of(config.registry_url)

    def age(kid: UUID) -> None:
        monkeypatch.setattr(keyring.recovery.registry, "_host", host := str(uuid4()))
        past = datetime.now(UTC) - timedelta(minutes=2)
        with engine.begin() as connection:
            update = keys.update().where(keys.c.kid == str(kid)).values(changed_at=past, host=host)
            assert connection.execute(update).rowcount == 1

    yield age
    engine.dispose()


def test_the_janitor_clears_away_what_is_a_minute_old(pending, new, keyring, aged):
    janitor = Janitor(keyring.recovery, None, pause_seconds=0.05)
    janitor.start()
    time.sleep(0.5)
    assert (new.rows, new.objects) == ({pending}, {pending})
    aged(pending)
    until(lambda: not new.rows)
    janitor.stop()
    assert (new.rows, new.objects) == (frozenset(), frozenset())


def test_the_janitor_lets_those_pass_who_make_keys(pending, keyring, monkeypatch):
    # The row stays young, so that the janitor of no other service on this registry takes it.
    monkeypatch.setattr(recovery, "GRACE", timedelta(0))
    with (
        file_lock(keyring.recovery.phases.lock, shared=True),
        pytest.raises(TokenUnavailable, match="another process"),
    ):
        keyring.recovery.settle()
    assert pending in keyring.recovery.settle()


def test_a_dry_run_tells_and_changes_nothing(pending, new, keyring):
    found = keyring.recovery.reconcile(dry_run=True)
    assert pending in found.settled
    assert pending not in (*found.missing, *found.unknown)
    assert (new.rows, new.objects) == ({pending}, {pending})
    keyring.recovery.reconcile(dry_run=False)


def test_a_row_that_may_have_been_written_is_reachable_by_nobody(new, local, keyring, monkeypatch):
    with monkeypatch.context() as fault:
        fault.setattr(*STEPS["the row may have been written"])
        assert local.post("/keys", AES).refusal == UNAVAILABLE
    for kid in new.rows:
        _assert_unreachable(local, str(kid))
    keyring.recovery.reconcile(dry_run=False)
    assert (new.rows, new.objects) == (frozenset(), frozenset())


@pytest.mark.parametrize("body", [AES, TWO_OBJECTS, PAIR], ids=["secret", "two-objects", "pair"])
@pytest.mark.parametrize(
    ("owner", "name", "error", "status"),
    [
        (Hsm, "destroy", TOKEN_FAILS, 503),
        (Hsm, "destroy", CryptoFailure("The token does not permit it"), 503),
        # The key is gone, and its line is written: the row is all that is left.
        (Registry, "remove", RegistryUnavailable(), 204),
    ],
    ids=["objects-stay", "objects-are-kept", "row-stays"],
)
def test_reconcile_ends_a_destruction(
    owner, name, error, status, body, new, local, keyring, monkeypatch
):
    key = local.create(**body)
    with monkeypatch.context() as fault:
        fault.setattr(owner, name, _before(error))
        assert local.delete(key["kid"]).status == status
    assert new.rows == {UUID(key["kid"])}
    _assert_unreachable(local, key["kid"])
    assert UUID(key["kid"]) in keyring.recovery.reconcile(dry_run=False).settled
    assert (new.rows, new.objects) == (frozenset(), frozenset())


def test_a_deletion_that_cannot_be_recorded_changes_nothing(new, local, monkeypatch):
    kid = local.create(**AES)["kid"]
    with monkeypatch.context() as fault:
        fault.setattr(Registry, "mark_destroyed", _before(RegistryUnavailable()))
        assert local.delete(kid).refusal == UNAVAILABLE
    assert new.rows == new.objects == {UUID(kid)}
    local.ok("/encrypt", {"kid": kid, "alg": "dir", "enc": "A256GCM", "data": ""})
    assert local.delete(kid).status == 204


def test_a_key_whose_row_vanished_meanwhile_is_not_returned(new, local, keyring, monkeypatch):
    """As when another host's ``reconcile`` takes a slow creation for a dead one."""
    generate = Hsm.generate

    def generate_slowly(token: Hsm, ref: KeyRef) -> Any:
        made = generate(token, ref)
        keyring.creation.phases.undo(ref)
        return made

    with monkeypatch.context() as fault:
        fault.setattr(Hsm, "generate", generate_slowly)
        assert local.post("/keys", AES).refusal == UNAVAILABLE
    assert (new.rows, new.objects) == (frozenset(), frozenset())


@pytest.fixture
def orphan(application: Any) -> Iterator[UUID]:
    """The kid of an object that no row knows."""
    token = service_of(application).hsm
    ref = new_ref(KeySpec(kty="oct", alg="A256GCM", bits=256))
    token.generate(ref)
    yield ref.kid
    token.destroy(ref)


def test_keys_without_a_row_are_told_and_never_destroyed(orphan, keyring, application):
    for _ in range(2):
        assert orphan in keyring.recovery.reconcile(dry_run=False).unknown
        assert orphan in service_of(application).hsm.inventory()


def test_rows_without_objects_are_told_and_kept(local, keyring, application):
    kid = UUID(local.create(**PAIR)["kid"])
    spec = KeySpec(kty="EC", crv="P-256")
    service_of(application).hsm.destroy(KeyRef(kid=kid, spec=spec))
    for _ in range(2):
        assert kid in keyring.recovery.reconcile(dry_run=False).missing
    answer = local.post("/sign", {"kid": str(kid), "alg": "ES256", "data": ""})
    assert answer.refusal == UNAVAILABLE  # it exists: 404 would be a lie
    assert local.delete(str(kid)).status == 204


def test_rows_whose_private_half_is_gone_are_told(local, keyring, application):
    kid = UUID(local.create(**PAIR)["kid"])
    token = service_of(application).hsm

    def destroy_private(lent: Any, session: Any) -> None:
        lent.stores["token"].forget(kid)
        for found in _private(session, kid):
            found.destroy()

    token._connection.perform(Errand(verb=destroy_private))
    try:
        assert kid in keyring.recovery.reconcile(dry_run=True).missing
    finally:
        assert local.delete(str(kid)).status == 204


def _private(session: Any, kid: UUID) -> list[Any]:
    private = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: kid.bytes}
    return session.find(private)


def test_reconcile_waits_for_a_creation_that_is_under_way(new, local, keyring, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    generate = Hsm.generate

    def generate_slowly(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(timeout=CHANGE.seconds)
        return generate(*args)

    monkeypatch.setattr(Hsm, "generate", generate_slowly)
    with ThreadPoolExecutor(2) as threads:
        creation = threads.submit(local.create, **AES)
        assert begun.wait(timeout=CHANGE.seconds)
        reconciliation = threads.submit(keyring.recovery.reconcile, dry_run=False)
        go_on.set()
        kid = UUID(creation.result(timeout=CHANGE.seconds)["kid"])
        assert kid not in reconciliation.result(timeout=CHANGE.seconds).settled
    assert new.rows == new.objects == {kid}
    assert local.delete(str(kid)).status == 204


@pytest.mark.promise
def test_reconcile_has_its_turn_while_keys_are_made_all_the_time(keyring):
    enough, over = time.monotonic() + RECONCILIATION.seconds, threading.Event()

    def make_and_make() -> None:
        while not over.is_set() and time.monotonic() < enough:
            with file_lock(keyring.recovery.phases.lock, shared=True):
                time.sleep(random.uniform(0.02, 0.06))

    with ThreadPoolExecutor(6) as threads:
        for _ in range(6):
            threads.submit(make_and_make)
        time.sleep(0.1)
        keyring.recovery.reconcile(dry_run=True)
        had_its_turn = time.monotonic() < enough
        over.set()
    assert had_its_turn


def _write_row(engine: Any, **values: Any) -> UUID:
    kid, now = uuid4(), datetime.now(UTC)
    row = {
        "kid": str(kid),
        "owner": "anonymous",
        "kty": "oct",
        "alg": "A256GCM",
        "bits": 256,
        "origin": "generated",
        "residency": "token",
        "state": "pending",
        "host": "elsewhere",
        "created_at": now,
        "changed_at": now,
    }
    with engine.begin() as connection:
        connection.execute(keys.insert().values(**row | values))
    return kid


@pytest.fixture
def apart(keyring: Any, tmp_path: Path) -> Iterator[Recovery]:
    """That of this process on a registry of its own, which no other service clears away from."""
    migrate(url := f"sqlite:///{tmp_path}/registry.db")
    registry = Registry(url, host="here")
    phases = replace(keyring.recovery.phases, registry=registry)
    yield replace(keyring.recovery, registry=registry, phases=phases)
    registry._database.engine.dispose()


def test_what_another_host_is_doing_is_left_alone_until_it_is_old(apart):
    engine = apart.registry._database.engine
    fresh = {_write_row(engine, state=state) for state in ("pending", "destroyed")}
    old = _write_row(engine, changed_at=datetime.now(UTC) - timedelta(hours=1))
    found = apart.reconcile(dry_run=False)
    assert (found.settled, found.missing) == ([old], [])
    assert apart.registry.specs().keys() == fresh


def test_the_command_tells_what_it_settled(tmp_path):
    environment = make_token(tmp_path / "state")
    url = Config.from_env(environment).registry_url
    migrate(url)
    engine = engine_of(url)
    old = _write_row(engine, changed_at=datetime.now(UTC) - timedelta(hours=1))
    tail = (
        "in the registry and not on the token: {missing}\n"
        "on the token and not in the registry (left alone): 0\n"
    )

    dry = jose_hsm(environment, "reconcile", "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert dry.stdout == f"would settle: 1\n  {old}\n" + tail.format(missing=0)
    done = jose_hsm(environment, "reconcile")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"settled: 1\n  {old}\n" + tail.format(missing=0)
    (line,) = (tmp_path / "state" / "audit.log").read_text().splitlines()
    assert json.loads(line)["destroyed"] == str(old)

    missing = _write_row(engine, state="active")
    done = jose_hsm(environment, "reconcile")
    assert done.returncode == 1
    assert done.stdout == "settled: 0\n" + tail.format(missing=f"1\n  {missing}")
    engine.dispose()


def test_the_command_tells_of_keys_without_a_row(orphan, environment, application):
    done = jose_hsm(environment, "reconcile")
    assert done.returncode == 1
    unknown = done.stdout.partition("on the token and not in the registry (left alone): ")[2]
    assert f"  {orphan}\n" in unknown
    assert orphan in service_of(application).hsm.inventory()


def test_the_command_says_in_a_line_that_the_registry_does_not_answer(environment, tmp_path):
    broken = {"JOSE_HSM_DATABASE_URL": f"sqlite:///{tmp_path}/absent/registry.db"}
    done = jose_hsm({**environment, **broken}, "reconcile")
    assert done.returncode == 2  # 1 says that something differs
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("jose-hsm: ")


@pytest.mark.long
def test_kids_survive_the_death_of_workers_and_reconcile_removes_the_rest():
    command = [sys.executable, "-m", "scripts.trials.kill_workers", "--kills", "10"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_creation_does_not_wait_for_ever_while_reconcile_is_at_work(local, config):
    with file_lock(config.state_dir / "unfinished.lock"):
        assert local.post("/keys", AES).refusal == UNAVAILABLE
    assert local.post("/keys", AES).status == 200
