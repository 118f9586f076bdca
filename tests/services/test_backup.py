"""``jose-hsm backup`` and ``restore``: whole, of one instant, and nothing comes back to life."""

import gzip
import hashlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import NAMESPACE_OID, UUID, uuid5

import pytest
from sqlalchemy import create_engine, text

from app.audit import AuditLog, since
from app.config import Config
from app.errors import RegistryUnavailable
from app.http.router import CHANGES
from app.keys import recovery
from app.keys.budget import MOST_ENCRYPTIONS
from app.operator import backup
from app.operator.cli import keys, main
from app.operator.errors import BackupError
from app.operator.restoration import FASTEST_A_SECOND, alone, plan, serving_lock
from app.registry import migrate
from app.service import service_of
from hsm import Hsm, TokenUnavailable, file_lock
from hsm.messages import OWN_KEY
from scripts.throwaway import make_token
from tests.shared.api import Api
from tests.shared.callers import WITH_TOKENS, token_for
from tests.shared.command import jose_hsm
from tests.shared.command_line import CommandLine
from tests.shared.forks import server
from tests.shared.postgresql import Cluster
from tests.shared.waiting import until

MAC = {"kty": "oct", "alg": "HS256"}
AES = "11111111-1111-4111-8111-111111111111"
PENDING = "22222222-2222-4222-8222-222222222222"
GONE = "33333333-3333-4333-8333-333333333333"
BY_ITSELF = ("--without-token", "--unauthenticated")
THEN = "2026-01-02 03:04:05.678900"


def run(
    settings: dict[str, str], *arguments: str | Path, status: int = 0
) -> "subprocess.CompletedProcess[str]":
    done = jose_hsm(settings, *map(str, arguments))
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    return done


class Said(NamedTuple):
    """What a command has printed."""

    stdout: str
    stderr: str


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in this process: those that open no token may."""

    def run_here(settings: dict[str, str], *arguments: str | Path, status: int = 0) -> Said:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        assert main(list(map(str, arguments))) == status
        return Said(*capsys.readouterr())

    return run_here


@contextmanager
def connected(url: str) -> Iterator[Any]:
    engine = create_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def everything(url: str) -> dict[str, list[Any]]:
    with connected(url) as connection:
        tables = ("keys", "grants", "tags", "tokens", "repetitions", "uses")
        return {name: connection.execute(text(f"SELECT * FROM {name}")).all() for name in tables}


def add(connection: Any, kid: str, alg: str = "A256GCM", state: str = "active") -> None:
    """Put a key and what belongs to it into a registry."""
    connection.execute(
        text(
            "INSERT INTO keys (kid, owner, kty, alg, bits, origin, residency, state, host,"
            " created_at, changed_at, encryptions, name, public_jwk) VALUES (:kid, 'x',"
            " 'oct', :alg, 256, 'generated', 'token', :state, 'h', :then, :then, 5,"
            " 'naïve', NULL)"
        ),
        {"kid": kid, "alg": alg, "state": state, "then": f"{THEN}+00:00"},
    )
    for statement in (
        "INSERT INTO grants VALUES (:kid, 'token:bob', 'encrypt')",
        "INSERT INTO tags VALUES (:kid, 'tag', :then)",
        "INSERT INTO repetitions VALUES ('x', :kid, 'f', :kid, '{\"kid\": 1}', :then)",
        "INSERT INTO uses VALUES (:kid, '2026-01-02')",
    ):
        connection.execute(text(statement), {"kid": kid, "then": f"{THEN}+00:00"})


def fill(url: str) -> None:
    """Put one row into each table, and three keys."""
    migrate(url)
    with connected(url) as connection:
        add(connection, AES)
        add(connection, PENDING, state="pending")
        add(connection, GONE, "HS256")
        connection.execute(
            text(
                "INSERT INTO tokens (id, hash, principal, roles, created_at)"
                " VALUES ('abcd', 'ffff', 'token:bob', '', :then)"
            ),
            {"then": f"{THEN}+00:00"},
        )


@pytest.fixture
def settings(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Those of a registry of one's own; the token is that of the session."""
    return beside(environment, tmp_path)


def beside(environment: dict[str, str], directory: Path) -> dict[str, str]:
    """Return settings that differ from ``environment`` in the registry, which is to be made."""
    own = environment | {"JOSE_HSM_STATE_DIR": str(directory / "own")}
    own.pop("JOSE_HSM_DATABASE_URL", None)
    (directory / "own").mkdir(mode=0o700)
    return own


def url_in(settings: dict[str, str]) -> str:
    return f"sqlite:///{settings['JOSE_HSM_STATE_DIR']}/registry.db"


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


# --- Under load ---


@contextmanager
def creating(url: str, bearer: str) -> Iterator[list[str]]:
    """Create keys for one ``with`` block; give the kids that have been returned so far."""
    returned: list[str] = []
    is_over = threading.Event()

    def create() -> None:
        api = Api.over_http(url, bearer=bearer)
        while not is_over.is_set():
            if (made := api.post("/keys", MAC)).status == 200:
                returned.append(made.body["kid"])

    clients = [threading.Thread(target=create) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        yield returned
    finally:
        is_over.set()
        for client in clients:
            client.join()


def assert_used(settings: dict[str, str], bearer: str, kids: list[str]) -> None:
    with server(settings, workers=1) as service:
        api = Api.over_http(service.url, bearer=bearer)
        for kid in kids:
            while (
                used := api.post("/mac", {"kid": kid, "alg": "HS256", "data": ""})
            ).status == 503:
                time.sleep(0.1)
            assert used.status == 200


@pytest.mark.parametrize("source", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def test_a_backup_under_load_has_every_key_returned_before_and_restores_into_the_other(
    source: str, postgresql: Cluster, tmp_path: Path
) -> None:
    here = make_token(tmp_path / "state") | WITH_TOKENS
    there = here | {"JOSE_HSM_STATE_DIR": str(tmp_path / "another host")}
    on_server = here if source == "postgresql" else there
    on_server["JOSE_HSM_DATABASE_URL"] = postgresql.registry()
    bearer, file = token_for(here, "token:alice"), tmp_path / "backup"
    with server(here, workers=1) as service:
        with creating(service.url, bearer) as returned:
            until(lambda: len(returned) >= 10)
            known = list(returned)
            run(here, "backup", file)
        assert "stop it first" in run(here, "restore", file, "--force", status=2).stderr
        if source == "postgresql":  # the lock of another host tells nothing, the server does
            elsewhere = there | {"JOSE_HSM_DATABASE_URL": here["JOSE_HSM_DATABASE_URL"]}
            refused = run(elsewhere, "restore", file, "--force", status=2)
            assert "stop all services" in refused.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    saved = {row["kid"] for table, row in backup.rows_of(file) if table == "keys"}
    assert set(known) <= saved
    done = run(there, "restore", file)
    assert "in the backup and not on the token: 0\n" in done.stdout
    assert set(returned) - saved <= set(done.stdout.split())
    assert_used(there, bearer, known)


# --- What is restored ---


def test_all_rows_come_back_as_they_were_and_only_once(here, settings, database_url, tmp_path):
    fill(url_in(settings))
    with connected(url_in(settings)) as connection:
        connection.execute(text(f"DELETE FROM keys WHERE kid = '{PENDING}'"))
        for table in ("grants", "tags", "repetitions", "uses"):
            connection.execute(text(f"DELETE FROM {table} WHERE kid = '{PENDING}'"))
    expected = lines(write(here, settings, tmp_path / "one"))
    target = settings | {"JOSE_HSM_DATABASE_URL": database_url}
    arguments = ("restore", tmp_path / "one", *BY_ITSELF, "--encryptions", "0")
    here(target, *arguments)
    assert "not empty" in here(target, *arguments, status=2).stderr
    here(target, *arguments, "--force")
    again = lines(write(here, target, tmp_path / "two"))
    assert sorted(map(str, again[1:-1])) == sorted(map(str, expected[1:-1]))
    assert len(again) == len(expected) == 13


def write(here: Any, settings: dict[str, str], path: Path) -> Path:
    here(settings, "backup", "--without-token", path)
    return path


LINES_OF_DESTRUCTIONS: list[dict[str, Any]] = [
    {"endpoint": "keys.destroy", "status": 204, "kid": GONE},  # as it was written up to 0.1.0
    {"endpoint": "cli.keys.destroy", "kid": GONE},  # likewise
    {"endpoint": "cli.reconcile", "settled": [PENDING, GONE]},  # likewise
    {"endpoint": "keys.destroy", "status": 503, "kid": "either half", "destroyed": GONE},
    {"endpoint": "janitor", "destroyed": GONE},
]


@pytest.mark.parametrize("destroyed", LINES_OF_DESTRUCTIONS, ids=str)
def test_what_must_not_come_back_does_not(destroyed, here, settings, tmp_path):
    url, log = url_in(settings), AuditLog(Path(settings["JOSE_HSM_STATE_DIR"]) / "audit.log")
    fill(url)
    log.record(endpoint="keys.create", status=200, new_kid=AES)
    file = write(here, settings, tmp_path / "file")
    log.record(endpoint="keys.destroy", status=403, kid=AES)
    log.record(endpoint="keys.destroy", status=503, kid=AES)  # not begun
    log.record(**destroyed)
    log.record(endpoint="cli.token.revoke", token="abcd")
    log.record(endpoint="grants.revoke", status=204, kid=AES, grantee="token:bob", operations=[])
    with connected(url) as connection:
        connection.execute(text(f"UPDATE keys SET encryptions = 77 WHERE kid = '{AES}'"))
    arguments = ("restore", file, *BY_ITSELF, "--force", "--encryptions", "10")
    done = here(settings, *arguments)
    assert "does not reach back" not in done.stderr
    found = everything(url)
    (key,) = found["keys"]
    assert (key.kid, key.encryptions) == (AES, 77)
    assert [row.kid for name in ("tags", "repetitions") for row in found[name]] == [AES, AES]
    assert not found["grants"]
    (token,) = found["tokens"]
    assert token.revoked_at
    (line,) = [
        entry
        for entry in map(json.loads, (log_path(settings)).read_text().splitlines())
        if entry["endpoint"] == "cli.restore"
    ]
    assert line["left_out"] == [PENDING, GONE]


# --- What became of keys after the backup ---


class Case(NamedTuple):
    """A key of a backup; lines of the audit log and the day of its last use, both after it."""

    row: str = "name = 'x'"
    lines: Sequence[Mapping[str, Any]] = ()
    day: str = "2026-01-02"


class Restored(NamedTuple):
    """What a restoration has printed, and the registry then."""

    printed: str
    found: dict[str, list[Any]]

    def listed(self, title: str, kid: str) -> list[str]:
        """What is listed of a key under the line with ``title``."""
        return [line for line in listed(self.printed, title) if kid in line]

    def rows(self, table: str, kid: str) -> list[Any]:
        """The rows of a key."""
        return [row for row in self.found[table] if row.kid == kid]


def kid_of(*case: str) -> str:
    """Return the kid of the key of a case."""
    return str(uuid5(NAMESPACE_OID, ": ".join(case)))


def restored(settings: dict[str, str], cases: Mapping[str, Case]) -> Restored:
    """Restore a backup that has a key for each case, by kid, all at once."""
    url, log = url_in(settings), AuditLog(log_path(settings))
    file = log_path(settings).with_name("backup")
    migrate(url)
    with connected(url) as connection:
        for kid, case in cases.items():
            add(connection, kid)
            connection.execute(text(f"UPDATE keys SET {case.row} WHERE kid = '{kid}'"))
    backup.write(file, url, mac=None)
    with connected(url) as connection:
        for kid, case in cases.items():
            connection.execute(text(f"UPDATE uses SET day = '{case.day}' WHERE kid = '{kid}'"))
            for line in case.lines:
                log.record(**{"endpoint": "keys.change", "status": 200, "kid": kid, **line})
    arguments = ("restore", file, *BY_ITSELF, "--force", "--encryptions", "0")
    typed = CommandLine(settings).type(*arguments)
    assert typed.status == 0, typed
    return Restored(typed.text, everything(url))


# --- What took rights away ---

OWNER = {"owner": "token:new"}
SOON, LATER = "2026-06-01T00:00:00+00:00", "2999-06-01T00:00:00+00:00"


class Later(NamedTuple):
    """Lines after the backup; what is taken away again, and what is to be done."""

    lines: list[dict[str, Any]]
    taken: list[str]
    to_do: list[str]


CHANGED_LATER = {
    "compromised": Later([{"state": "compromised"}], ["state compromised"], []),
    "deactivated": Later([{"state": "deactivated"}], ["state deactivated"], []),
    "and active again": Later([{"state": "deactivated"}, {"state": "active"}], [], []),
    "owner": Later([OWNER], ["owner token:new"], []),
    "expiry": Later([{"expires_at": SOON}], [f"expires_at {SOON}"], []),
    "expiry as it was written before": Later(
        [{"expires_at": "2026-06-01 00:00:00+00:00"}], ["expires_at 2026-06-01 00:00:00+00:00"], []
    ),
    "later expiry": Later([{"expires_at": LATER}], [], [f"expires_at {LATER}"]),
    "no expiry": Later([{"expires_at": None}], [], ["expires_at None"]),
    "no expiry as it was written before": Later([{"expires_at": "None"}], [], ["expires_at None"]),
    "grant taken away": Later(
        [{"grantee": "token:bob", "operations": []}], ["token:bob no longer encrypt"], []
    ),
    "grant changed": Later(
        [{"grantee": "token:bob", "operations": ["decrypt", "read"]}],
        ["token:bob no longer encrypt"],
        ["token:bob may decrypt read"],
    ),
    "grant given": Later([{"grantee": "*", "operations": ["mac"]}], [], ["* may mac"]),
    "alias": Later([{"alias": "x"}, {"alias": "y"}], [], ["alias y"]),
    "alias taken away again": Later([{"alias": "x"}, {"alias": None}], [], []),
    "tag removed": Later([{"untagged": ["tag", "none"]}], ["no tag tag"], []),
    "tag added": Later([{"tagged": ["other"]}], [], ["tag other"]),
    "tag removed and added": Later([{"untagged": ["tag"]}, {"tagged": ["tag"]}], [], []),
    "compromised by command": Later(
        [{"state": "compromised", "endpoint": "cli.keys.compromise"}], ["state compromised"], []
    ),
    "refused": Later([{"state": "compromised", "status": 403}], [], []),
}


@pytest.fixture(scope="module")
def changed_later(environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Restored:
    """What became of each key of ``CHANGED_LATER``, which the log calls by either name."""
    cases = {}
    for name, later in CHANGED_LATER.items():
        for by in NAMES:
            kid, kid_public = kid_of(name, by), kid_of(name, by, "public")
            row = f"kid_public = '{kid_public}', expires_at = '2028-01-01 00:00:00.000000'"
            called = kid_public if by == "public kid" else kid
            cases[kid] = Case(row, [{"kid": called, **line} for line in later.lines])
    return restored(beside(environment, tmp_path_factory.mktemp("changed")), cases)


NAMES = ("kid", "public kid")


@pytest.mark.parametrize("by", NAMES)
@pytest.mark.parametrize("name", CHANGED_LATER)
def test_what_took_rights_away_is_done_again_and_the_rest_listed(name, by, changed_later):
    kid, (_, taken, to_do) = kid_of(name, by), CHANGED_LATER[name]
    assert changed_later.listed("taken away again", kid) == [f"{kid}: {each}" for each in taken]
    assert changed_later.listed("to be done again", kid) == [f"{kid}: {each}" for each in to_do]
    [key] = changed_later.rows("keys", kid)
    expected = {"state": "active", "owner": "x", "expires_at": "2028-01-01 00:00:00.000000"}
    for each in taken:
        column, _, value = each.partition(" ")
        if column in expected:
            expected[column] = value.replace("T", " ").replace("+00:00", ".000000")
    assert {column: str(getattr(key, column)) for column in expected} == expected
    assert bool(key.deactivated_at) is (expected["state"] != "active")
    assert [row.operation for row in changed_later.rows("grants", kid)] == (
        [] if any("no longer" in each for each in taken) else ["encrypt"]
    )
    assert bool(changed_later.rows("tags", kid)) is ("no tag tag" not in taken)


def test_nothing_else_is_listed(changed_later):
    kids = {kid_of(name, by) for name in CHANGED_LATER for by in NAMES}
    for title in ("taken away again", "to be done again"):
        assert {line.partition(":")[0] for line in listed(changed_later.printed, title)} <= kids


def listed(printed: str, title: str) -> list[str]:
    """The items that are printed under the line with ``title``."""
    lines = iter(printed.splitlines())
    heading = next(line for line in lines if title in line)
    number = int(heading.rpartition(" ")[2])
    return [next(lines).strip() for _ in range(number)]


# --- What was deleted and can be had back ---

DELETED: dict[str, Any] = {"endpoint": "keys.destroy", "status": 204, "destroy_at": LATER}
RESTORED: dict[str, Any] = {"endpoint": "keys.restore", "status": 200, "destroy_at": None}
IS_DELETED = "state = 'destroying', state_before = 'active', destroy_at = '2026-01-03 00:00:00'"


class Deletion(NamedTuple):
    """The row in the backup, lines after it, and what becomes of it, of its state before too."""

    row: str
    lines: list[dict[str, Any]]
    states: tuple[str, str | None]
    taken: list[str]
    to_do: list[str]


DELETIONS = {
    "deleted": Deletion(
        "name = 'x'", [DELETED], ("destroying", "active"), [f"destroy_at {LATER}"], []
    ),
    "deleted by command": Deletion(
        "name = 'x'",
        [{"endpoint": "cli.keys.destroy", "destroy_at": LATER}],
        ("destroying", "active"),
        [f"destroy_at {LATER}"],
        [],
    ),
    "and restored": Deletion("name = 'x'", [DELETED, RESTORED], ("active", None), [], []),
    "and restored by command": Deletion(
        "name = 'x'",
        [DELETED, {"endpoint": "cli.keys.restore", "destroy_at": None}],
        ("active", None),
        [],
        [],
    ),
    "compromised and deleted": Deletion(
        "name = 'x'",
        [{"state": "compromised"}, DELETED],
        ("destroying", "compromised"),
        ["state compromised", f"destroy_at {LATER}"],
        [],
    ),
    "deleted before": Deletion(IS_DELETED, [], ("destroying", "active"), [], []),
    "restored since": Deletion(
        IS_DELETED, [RESTORED], ("destroying", "active"), [], ["destroy_at None"]
    ),
    "restored since, and compromised": Deletion(
        IS_DELETED,
        [RESTORED, {"state": "compromised"}],
        ("destroying", "compromised"),
        ["state compromised"],
        ["destroy_at None"],
    ),
}


class Day(NamedTuple):
    """A restoration, and when it began."""

    began: datetime
    restored: Restored


@pytest.fixture(scope="module")
def deleted(environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Day:
    """What became of each key of ``DELETIONS``."""
    cases = {kid_of(name): Case(each.row, each.lines) for name, each in DELETIONS.items()}
    settings = beside(environment, tmp_path_factory.mktemp("deleted"))
    return Day(datetime.now(UTC), restored(settings, cases))


@pytest.mark.parametrize("name", DELETIONS)
def test_what_was_deleted_is_there_for_a_day_at_least_as_it_may_be_restored(name, deleted):
    kid, deletion, (began, found) = kid_of(name), DELETIONS[name], deleted
    assert found.listed("taken away again", kid) == [f"{kid}: {each}" for each in deletion.taken]
    assert found.listed("to be done again", kid) == [f"{kid}: {each}" for each in deletion.to_do]
    [key] = found.rows("keys", kid)
    assert (key.state, key.state_before) == deletion.states
    assert bool(key.deactivated_at) is ("compromised" in deletion.states)
    if key.state == "destroying":
        destroy_at = datetime.fromisoformat(key.destroy_at).replace(tzinfo=UTC)
        assert destroy_at >= began + timedelta(days=1)
        was_said = f"destroy_at {LATER}" in deletion.taken
        assert (destroy_at == datetime.fromisoformat(LATER)) is was_said


def test_lines_of_several_hosts_count_in_the_order_of_their_times(here, settings, tmp_path):
    fill(url_in(settings))
    file = write(here, settings, tmp_path / "file")
    first, second = AuditLog(tmp_path / "a"), AuditLog(tmp_path / "b")
    change: dict[str, Any] = {"endpoint": "keys.change", "status": 200, "kid": AES}
    second.record(**change, owner="token:first", time="2999-01-01T00:00:00.000+00:00")
    first.record(**change, owner="token:last", time="2999-01-02T00:00:00.000+00:00")
    (tmp_path / "b.gz").write_bytes(gzip.compress((tmp_path / "b").read_bytes()))
    logs = ("--audit", tmp_path / "a", "--audit", tmp_path / "b.gz")
    mistyped = ("--audit", tmp_path / "a", "--audit", tmp_path / "c")
    refused = here(settings, "restore", file, *BY_ITSELF, "--force", *mistyped, status=2)
    assert "does not exist" in refused.stderr
    (tmp_path / "c").write_bytes((tmp_path / "b.gz").read_bytes()[1:])
    refused = here(settings, "restore", file, *BY_ITSELF, "--force", *mistyped, status=2)
    assert "there is no line that can be read" in refused.stderr
    here(settings, "restore", file, *BY_ITSELF, "--force", *logs)
    (owner,) = [row.owner for row in everything(url_in(settings))["keys"] if row.kid == AES]
    assert owner == "token:last"


def test_what_the_service_writes_is_enough_to_take_rights_away_again(tmp_path):
    own = make_token(tmp_path / "state") | WITH_TOKENS
    bearers = {name: token_for(own, f"token:{name}") for name in ("alice", "bob")}
    with server(own, workers=1) as service:
        alice = Api.over_http(service.url, bearer=bearers["alice"])
        kids = {name: alice.create(**MAC)["kid"] for name in CHANGED}
        for kid in kids.values():
            grant = {"operations": ["mac"]}
            assert alice.request("PUT", f"/keys/{kid}/grants/token:bob", json=grant).status == 200
            assert alice.post(f"/keys/{kid}/tags", {"tags": ["mine"]}).status == 200
        run(own, "backup", tmp_path / "file")
        for name, (method, path, body) in CHANGED.items():
            answer = alice.request(method, f"/keys/{kids[name]}{path}", json=body)
            assert answer.status in {200, 204}
        run(own, "token", "revoke", token_id(own, "token:alice"))
    run(own, "restore", tmp_path / "file", "--force")
    with server(own, workers=1) as service:
        alice, bob = (Api.over_http(service.url, bearer=bearers[n]) for n in ("alice", "bob"))
        assert alice.get("/keys").status == 401
        use = {name: {"kid": kid, "alg": "HS256", "data": ""} for name, kid in kids.items()}
        found = {name: bob.post("/mac", use[name]).status for name in use}
    assert found == {"state": 422, "grant": 403} | dict.fromkeys(("expiry", "owner", "tag"), 200)
    rows = everything(url_in(own))
    restored = {row.kid: row for row in rows["keys"]}
    assert restored[kids["owner"]].owner == "token:carol"
    assert str(restored[kids["expiry"]].expires_at).startswith("2099-01-01")
    assert {row.kid for row in rows["tags"]} == set(kids.values()) - {kids["tag"]}


CHANGED: dict[str, tuple[str, str, Any]] = {
    "state": ("PATCH", "", {"state": "compromised"}),
    "expiry": ("PATCH", "", {"expires": "2099-01-01T00:00:00Z"}),
    "grant": ("DELETE", "/grants/token:bob", None),
    "owner": ("PATCH", "", {"owner": "token:carol"}),
    "tag": ("DELETE", "/tags", {"tags": ["mine"]}),
}


def token_id(settings: dict[str, str], principal: str) -> str:
    listed = json.loads(run(settings, "token", "list", "--json").stdout)
    return next(str(row["id"]) for row in listed if row["principal"] == principal)


# --- Who wrote it ---


def test_a_backup_is_taken_of_whoever_can_use_the_token(tmp_path):
    settings = make_token(tmp_path / "state")  # it belongs to the restored registry afterwards
    fill(url_in(settings))
    file = tmp_path / "file"
    run(settings, "backup", file)
    assert run(settings, "restore", file, "--force").stderr.count("not authenticated") == 0
    run(settings, "backup", file, "--force")  # under the same key
    assert lines(file)[-1].keys() == {"rows", "sha256", "mac"}
    forged = spoil_rows(file, tmp_path / "forged")
    refused = run(settings, "restore", forged, "--force", status=2)
    assert "not authenticated by this token" in refused.stderr
    stripped = spoil_rows(file, tmp_path / "stripped", mac=None)
    for arguments in ((), ("--without-token",), ("--dry-run",)):
        refused = run(settings, "restore", stripped, "--force", *arguments, status=2)
        assert "not authenticated by this token" in refused.stderr
    refused = run(settings, "restore", file, "--force", "--without-token", status=2)
    assert "add --unauthenticated" in refused.stderr
    done = run(settings, "restore", stripped, "--force", "--unauthenticated")
    assert "not authenticated by this token" in done.stderr
    assert str(OWN_KEY.kid) not in jose_hsm(settings, "reconcile", "--dry-run").stdout


def spoil_rows(path: Path, new: Path, **end: Any) -> Path:
    """Write a backup in which bob is eve, with the digest of that."""
    *rows, last = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    content = b"".join(rows).replace(b'"token:bob"', b'"token:eve"')
    members = json.loads(last) | {"sha256": hashlib.sha256(content).hexdigest()} | end
    kept = {name: value for name, value in members.items() if value is not None}
    new.write_bytes(gzip.compress(content + json.dumps(kept).encode() + b"\n"))
    return new


def log_path(settings: dict[str, str]) -> Path:
    return Path(settings["JOSE_HSM_STATE_DIR"]) / "audit.log"


def lost(*_arguments: object) -> None:
    raise TokenUnavailable("the token does not answer")


def unwritable(*_arguments: object, **_members: object) -> None:
    raise OSError("no room")


class Saved(NamedTuple):
    """A key of the service in this process, and a backup that has it."""

    kid: str
    file: Path
    config: Config
    keyring: Any

    @property
    def is_left_out(self) -> bool:
        """Whether a restoration would leave it out, for it has been destroyed."""
        history = since(
            filter(None, [self.config.audit_path]), backup.read(self.file).taken_at, CHANGES
        )
        planned = plan(self.file, self.config.registry_url, history, encryptions=None)
        assert planned.destroyed <= {self.kid}
        return self.kid in planned.destroyed

    @property
    def has_row(self) -> bool:
        """Whether the registry has anything of it."""
        return UUID(self.kid) in self.keyring.recovery.registry.specs()


@pytest.fixture
def saved(application: Any, local: Api, config: Config, tmp_path: Path) -> Saved:
    kid, file = local.create(**MAC)["kid"], tmp_path / "file"
    backup.write(file, config.registry_url, mac=None)
    return Saved(kid, file, config, service_of(application).keyring)


@pytest.fixture
def clear_away(application: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the janitor finish also what was begun just now."""
    monkeypatch.setattr(recovery, "GRACE", timedelta(0))
    return service_of(application).janitor.settle


def answered_503(saved: Saved, api: Api) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hsm, "destroy", lost)
        assert api.delete(saved.kid).refusal == (503, "unavailable")


def killed(saved: Saved, _api: Api) -> None:
    """Leave what a worker does that is killed after its first step."""
    assert saved.keyring.recovery.registry.mark_destroyed(UUID(saved.kid))


@pytest.mark.parametrize("interrupt", [answered_503, killed])
def test_what_the_janitor_has_destroyed_does_not_come_back(interrupt, saved, local, clear_away):
    assert not saved.is_left_out
    interrupt(saved, local)
    assert saved.is_left_out is (interrupt is answered_503)
    clear_away()
    assert not saved.has_row
    assert saved.is_left_out


def test_without_a_line_the_janitor_leaves_the_row(saved, local, clear_away, monkeypatch):
    killed(saved, local)
    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "record_all", unwritable)
        clear_away()
    assert saved.has_row
    clear_away()
    assert not saved.has_row


def test_a_command_that_loses_the_token_has_destroyed_the_key(
    saved, environment, here, monkeypatch, clear_away
):
    monkeypatch.setattr(keys, "keyring_of", lambda _config: saved.keyring)
    with monkeypatch.context() as patch:
        patch.setattr(Hsm, "destroy", lost)
        here(environment, "keys", "destroy", "--yes", saved.kid, status=2)
    assert saved.is_left_out
    clear_away()
    assert not saved.has_row


@pytest.mark.parametrize("alg", ["A256GCM", "A256GCMKW"])
def test_an_aes_gcm_key_counts_as_used_as_often_as_it_can_have_been(alg, here, settings, tmp_path):
    fill(url_in(settings))
    with connected(url_in(settings)) as connection:
        connection.execute(text(f"UPDATE keys SET alg = '{alg}' WHERE kid = '{AES}'"))
    file = write(here, settings, tmp_path / "file")
    rewrite(file, taken_at=datetime.now(UTC) - timedelta(hours=1))
    done = here(settings, "restore", file, *BY_ITSELF, "--force")
    assert "does not reach back" in done.stderr
    counted = {row.kid: row.encryptions for row in everything(url_in(settings))["keys"]}
    assert 3600 * FASTEST_A_SECOND < counted[AES] < 3700 * FASTEST_A_SECOND
    assert counted[GONE] == 5  # no AES-GCM
    rewrite(file, taken_at=datetime.now(UTC) - timedelta(days=30))
    here(settings, "restore", file, *BY_ITSELF, "--force")
    counted = {row.kid: row.encryptions for row in everything(url_in(settings))["keys"]}
    assert counted[AES] == MOST_ENCRYPTIONS


LATE = "2999-01-01T23:00:00.000Z"
LAST_USES: dict[str, tuple[dict[str, Any] | None, str, str]] = {
    "nothing": (None, "2026-01-02", "2026-01-02"),
    "an earlier day": (None, "2026-01-01", "2026-01-02"),
    "a later day": (None, "2026-01-03", "2026-01-03"),
    "a use": ({}, "2026-01-03", "2999-01-01"),
    "several": ({"kid": None, "kids": [GONE, kid_of("several")]}, "2026-01-03", "2999-01-01"),
    "a refusal": ({"status": 422}, "2026-01-02", "2026-01-02"),
    "a use of another": ({"kid": GONE}, "2026-01-02", "2026-01-02"),
}
"""A line of the log after the backup, the day in the registry then, and the one at the end."""


@pytest.fixture(scope="module")
def used(environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Restored:
    """What became of each key of ``LAST_USES``."""
    a_use = {"endpoint": "signing.sign", "time": LATE}
    cases = {
        kid_of(name): Case(lines=[] if line is None else [a_use | line], day=day)
        for name, (line, day, _) in LAST_USES.items()
    }
    return restored(beside(environment, tmp_path_factory.mktemp("used")), cases)


@pytest.mark.parametrize("name", LAST_USES)
def test_a_key_was_used_last_on_the_latest_day_that_anybody_knows_of(name, used):
    [row] = used.rows("uses", kid_of(name))
    assert row.day == LAST_USES[name][2]


def test_a_key_that_was_first_used_after_the_backup_is_a_used_one(here, settings, tmp_path):
    url, log = url_in(settings), AuditLog(log_path(settings))
    fill(url)
    with connected(url) as connection:
        connection.execute(text("DELETE FROM uses"))
    file = write(here, settings, tmp_path / "file")
    for kid in (AES, PENDING, "a key that is not in it"):
        log.record(endpoint="signing.sign", status=200, kid=kid)
    began = datetime.now(UTC).date()
    here(settings, "restore", file, *BY_ITSELF, "--force", "--encryptions", "0")
    [row] = everything(url)["uses"]
    assert row.kid == AES
    assert began.isoformat() <= row.day <= datetime.now(UTC).date().isoformat()


def rewrite(path: Path, **changes: Any) -> None:
    """Write a backup anew with another first line."""
    head, *rows = gzip.decompress(path.read_bytes()).splitlines(keepends=True)[:-1]
    values = {name: getattr(value, "isoformat", value.__str__)() for name, value in changes.items()}
    content = [json.dumps(json.loads(head) | values).encode() + b"\n", *rows]
    digest = hashlib.sha256(b"".join(content)).hexdigest()
    content.append(json.dumps({"rows": len(rows), "sha256": digest}).encode() + b"\n")
    path.write_bytes(gzip.compress(b"".join(content)))


def test_a_backup_of_an_older_schema_is_migrated_on(here, settings, tmp_path):
    file = tmp_path / "old"
    row = {"kid": AES, "owner": "x", "kty": "oct", "alg": "A256GCM", "bits": 256, "host": "h"}
    row |= {"origin": "generated", "residency": "token", "state": "active", "kid_public": None}
    row |= {"crv": None, "public_jwk": None}
    row |= dict.fromkeys(("created_at", "changed_at"), "2026-01-02T03:04:05+00:00")
    head = {"format": backup.FORMAT, "revision": "0001", "taken_at": "2026-01-02T03:04:05+00:00"}
    content = "".join(f"{json.dumps(value)}\n" for value in (head, ["keys", row]))
    file.write_bytes(gzip.compress(content.encode()))
    rewrite_end(file)
    here(settings, "restore", file, *BY_ITSELF, "--encryptions", "3")
    (key,) = everything(url_in(settings))["keys"]
    assert (key.kid, key.encryptions) == (AES, 3)
    assert key.activated_at == key.created_at  # as the migration has it


def rewrite_end(path: Path) -> None:
    content = gzip.decompress(path.read_bytes())
    end = {
        "rows": content.count(b"\n") - 1,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    path.write_bytes(gzip.compress(content + json.dumps(end).encode() + b"\n"))


def test_a_dry_run_says_what_differs_from_the_token_and_changes_nothing(
    here, settings, live, tmp_path
):
    kid = live.create(**MAC)["kid"]
    wrapping = live.ok("/wrapping-keys", {})["kid"]
    fill(url_in(settings))
    with connected(url_in(settings)) as connection:
        add(connection, wrapping, state="wrapping")
    file = write(here, settings, tmp_path / "file")
    before = everything(url_in(settings))
    done = run(settings, "restore", file, "--dry-run", "--unauthenticated", status=1)
    missing, unknown = done.stdout.split("in the backup and not on the token: ")[1].split(
        "on the token and not in the backup (left alone): "
    )
    assert missing.split() == ["2", AES, GONE]
    assert kid in unknown.split()
    assert wrapping not in unknown.split()
    assert everything(url_in(settings)) == before
    assert live.post("/mac", {"kid": kid, "alg": "HS256", "data": ""}).status == 200


# --- What is refused ---


def spoiled(content: bytes) -> bytes:
    return gzip.compress(gzip.decompress(content).replace(b'"token:bob"', b'"token:eve"'))


def shortened(content: bytes) -> bytes:
    return gzip.compress(b"".join(gzip.decompress(content).splitlines(keepends=True)[:-1]))


def lengthened(content: bytes) -> bytes:
    return gzip.compress(gzip.decompress(content) + b"[]\n")


def changed(content: bytes) -> bytes:
    return content[:80] + bytes([content[80] ^ 1]) + content[81:]


def deepened(content: bytes) -> bytes:
    first, *rows = gzip.decompress(content).splitlines(keepends=True)
    return gzip.compress(b"".join([first, b"[" * 100_000 + b"\n", *rows]))


BAD = {
    "spoiled": (spoiled, "damaged"),
    "without its end": (shortened, "damaged"),
    "lengthened": (lengthened, "damaged"),
    "cut off": (lambda content: content[:-20], "damaged"),
    "a byte changed": (changed, "damaged|no backup"),
    "empty": (lambda _: b"", "no backup"),
    "not compressed": (gzip.decompress, "no backup"),
    "another file": (lambda _: gzip.compress(b'{"format": "other"}\n'), "no backup"),
    "no text": (lambda _: gzip.compress(b"\xff\xfe\n"), "no backup"),
    "a list": (lambda _: gzip.compress(b"[]\n"), "no backup"),
    "too deep": (lambda _: gzip.compress(b"[" * 100_000), "no backup"),
    "a row too deep": (deepened, "damaged"),
}


@pytest.fixture(scope="module")
def good(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("good")
    url = f"sqlite:///{directory}/registry.db"
    fill(url)
    backup.write(directory / "file", url, mac=None)
    return directory / "file"


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_a_whole_backup_is_refused(name, good, tmp_path):
    spoil, reason = BAD[name]
    path = tmp_path / "bad"
    path.write_bytes(spoil(good.read_bytes()))
    with pytest.raises(BackupError, match=reason):
        backup.read(path)


def test_where_a_newer_registry_was_a_backup_is_restored_once_that_is_moved_away(
    here, settings, good, tmp_path
):
    fill(url_in(settings))
    with connected(url_in(settings)) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    said = here(settings, "restore", good, *BY_ITSELF, "--force", status=2).stderr
    assert "move the registry away first" in said
    for path in Path(settings["JOSE_HSM_STATE_DIR"]).glob("registry.db*"):
        path.rename(tmp_path / path.name)
    assert here(settings, "restore", good, *BY_ITSELF).stdout.endswith("restored\n")


def test_a_refused_backup_changes_nothing(here, settings, good, tmp_path):
    fill(url_in(settings))
    before = everything(url_in(settings))
    path = tmp_path / "future"
    path.write_bytes(good.read_bytes())
    rewrite(path, revision="9999")
    arguments = (*BY_ITSELF, "--force")
    assert "9999" in here(settings, "restore", path, *arguments, status=2).stderr
    rewrite(path, revision="0003", taken_at=datetime.now(UTC) + timedelta(hours=1))
    assert "set the clock" in here(settings, "restore", path, *arguments, status=2).stderr
    path.write_bytes(spoiled(good.read_bytes()))
    assert "damaged" in here(settings, "restore", path, *arguments, status=2).stderr
    unwritable = settings | {"JOSE_HSM_AUDIT_LOG": str(tmp_path / "none" / "audit.log")}
    assert "the audit log" in here(unwritable, "restore", good, *arguments, status=2).stderr
    assert everything(url_in(settings)) == before


def test_a_token_that_does_not_answer_is_not_taken_for_a_running_service(tmp_path):
    with pytest.raises(TokenUnavailable), alone(tmp_path, f"sqlite:///{tmp_path}/registry.db"):
        raise TokenUnavailable
    with (
        file_lock(serving_lock(tmp_path), shared=True),
        pytest.raises(BackupError, match="stop it first"),
        alone(tmp_path, f"sqlite:///{tmp_path}/registry.db"),
    ):
        pytest.fail("it is alone")


def test_a_directory_that_cannot_be_used_is_not_taken_for_a_running_service(tmp_path):
    serving_lock(tmp_path).mkdir()
    with (
        pytest.raises(TokenUnavailable, match="Is a directory"),
        alone(tmp_path, f"sqlite:///{tmp_path}/registry.db"),
    ):
        pytest.fail("it is alone")


def test_a_file_is_replaced_only_if_that_is_asked_for(settings, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    migrate(url_in(settings))
    with pytest.raises(BackupError, match="--force"):
        backup.write(file, url_in(settings), mac=None)
    assert file.read_text() == "mine"
    backup.write(file, url_in(settings), mac=None, force=True)
    assert backup.read(file).rows.total() == 0
    assert [path.name for path in tmp_path.iterdir() if "file" in path.name] == ["file"]


def test_no_file_is_left_of_a_backup_that_fails(tmp_path):
    with pytest.raises(BackupError, match="no registry"):
        backup.write(tmp_path / "file", f"sqlite:///{tmp_path}/none.db", mac=None)
    migrate(f"sqlite:///{tmp_path}/registry.db")
    with pytest.raises(BackupError, match="cannot be written"):
        backup.write(tmp_path / "none" / "file", f"sqlite:///{tmp_path}/registry.db", mac=None)
    assert not list(tmp_path.glob("file*"))


def test_what_is_no_database_is_a_registry_that_does_not_answer(tmp_path):
    (tmp_path / "registry.db").write_text("no database")
    with pytest.raises(RegistryUnavailable):
        backup.write(tmp_path / "file", f"sqlite:///{tmp_path}/registry.db", mac=None)
