"""``jose-hsm keys``: what the operator sees and does, whoever owns the keys."""

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.audit import verify
from app.config import Config
from app.registry import Registry
from tests.shared.api import Api
from tests.shared.callers import WITH_TOKENS, token_for
from tests.shared.command import jose_hsm
from tests.shared.forks import fork
from tests.shared.waiting import COMMAND

UNKNOWN = "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11"


@pytest.fixture
def settings(environment: Any, tmp_path: Path) -> dict[str, str]:
    """Those of this session, with an audit log of one's own."""
    return environment | WITH_TOKENS | {"JOSE_HSM_AUDIT_LOG": str(tmp_path / "audit.log")}


@pytest.fixture
def run(settings: dict[str, str]) -> Any:
    def run(*arguments: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        done = jose_hsm(settings, *arguments)
        assert done.returncode == status, done
        assert "Traceback" not in done.stderr
        return done

    return run


def audited(settings: dict[str, str]) -> list[dict[str, Any]]:
    path = Path(settings["JOSE_HSM_AUDIT_LOG"])
    assert verify([path]).broken is None
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_key_of_anybody_is_shown_with_its_grants(run, callers):
    key = callers.alice.create(kty="EC", crv="P-256", alg="ES256")
    path = f"/keys/{key['kid']}/grants/token:bob"
    callers.alice.request("PUT", path, json={"operations": ["verify"]})
    for kid in (key["kid"], key["kid_public"]):
        shown = json.loads(run("keys", "show", "--json", kid).stdout)
        assert shown.pop("grants") == {"token:bob": ["verify"]}
        assert shown == callers.alice.get(f"/keys/{kid}").body
    table = run("keys", "show", key["kid"]).stdout
    assert "token:alice" in table
    assert "token:bob: verify" in table
    assert key["kid"] in run("keys", "list", "--owner", "token:alice").stdout


def test_a_destroyed_key_is_gone_at_once_and_in_the_audit_log(run, callers, settings):
    key = callers.alice.create(kty="EC", crv="P-256", alg="ES256")
    assert "destroyed" in run("keys", "destroy", "--yes", key["kid_public"]).stdout
    for _ in range(4):  # any worker
        body = {"kid": key["kid"], "alg": "ES256", "data": ""}
        assert callers.alice.post("/sign", body).refusal == (404, "not_found")
    run("keys", "destroy", "--yes", key["kid"], status=2)
    [line] = audited(settings)
    assert (line["principal"], line["endpoint"]) == ("operator", "cli.keys.destroy")
    assert line["kid"] == key["kid_public"]


def test_a_deleted_key_is_restored_by_the_operator_or_not_waited_for(run, callers, settings):
    kid = callers.alice.create(kty="oct", alg="HS256", destroy_after="P1D")["kid"]
    gone = json.loads(run("keys", "destroy", "--yes", "--json", kid).stdout)
    assert (gone["kid"], gone["state"]) == (kid, "destroying")
    assert kid in run("keys", "list", "--state", "destroying").stdout
    restored = json.loads(run("keys", "restore", "--json", kid).stdout)
    assert restored == callers.alice.get(f"/keys/{kid}").body
    assert restored["state"] == "active"
    refused = run("keys", "restore", kid, status=2)
    assert refused.stderr == "jose-hsm: The key is active, and there is nothing to restore\n"
    assert callers.alice.delete(kid).status == 204
    assert "destroyed" in run("keys", "destroy", "--yes", "--now", kid).stdout
    assert callers.alice.get(f"/keys/{kid}").status == 404
    deleted, back, destroyed = audited(settings)
    assert (deleted["endpoint"], deleted["destroy_at"]) == ("cli.keys.destroy", gone["destroys"])
    assert (back["endpoint"], back["kid"], back["destroy_at"]) == ("cli.keys.restore", kid, None)
    assert (destroyed["endpoint"], destroyed["destroyed"]) == ("cli.keys.destroy", kid)
    assert UUID(kid) not in Registry(Config.from_env(settings).registry_url, host="").specs()


def test_a_key_is_destroyed_after_a_yes_only(settings, run, callers):
    kid = callers.alice.create(kty="oct", alg="HS256")["kid"]
    refused = run("keys", "destroy", kid, status=2)
    assert refused.stderr == "jose-hsm: there is nobody to ask: add --yes\n"
    assert answered(settings, "n", "keys", "destroy", kid) != 0
    assert callers.alice.get(f"/keys/{kid}").status == 200
    assert answered(settings, "y", "keys", "destroy", kid) == 0
    assert callers.alice.get(f"/keys/{kid}").status == 404


def answered(settings: dict[str, str], answer: str, *arguments: str) -> int:
    """Run a command on a terminal, where somebody answers what it asks; return its status."""
    master, slave = pty.openpty()
    process = fork("jose-hsm", arguments, {**os.environ, **settings}, files=(1, 2, slave))
    os.write(master, f"{answer}\n".encode())
    status = process.wait(timeout=COMMAND.seconds)
    os.close(slave)
    os.close(master)
    return status


def test_a_key_is_deactivated_and_compromised_and_the_log_says_by_whom(run, callers, settings):
    kid = callers.alice.create(kty="oct", alg="HS256")["kid"]
    settings["SUDO_USER"] = "alice"
    for command, state in (("deactivate", "deactivated"), ("compromise", "compromised")):
        shown = json.loads(run("keys", command, "--json", kid).stdout)
        assert (shown["kid"], shown["state"]) == (kid, state)
        assert callers.alice.get(f"/keys/{kid}").body["state"] == state
    assert "cannot become" in run("keys", "deactivate", kid, status=2).stderr
    assert [
        (line["endpoint"], line["kid"], line["state"], line["uid"], line["sudo_user"])
        for line in audited(settings)
    ] == [
        ("cli.keys.deactivate", kid, "deactivated", os.getuid(), "alice"),
        ("cli.keys.compromise", kid, "compromised", os.getuid(), "alice"),
    ]


def test_a_new_schema_is_in_the_audit_log(settings, tmp_path):
    own = settings | {"JOSE_HSM_STATE_DIR": str(tmp_path / "own")}
    assert jose_hsm(own, "migrate", "--new").returncode == 0  # the token has another registry
    unwritable = own | {"JOSE_HSM_AUDIT_LOG": str(tmp_path / "none" / "audit.log")}
    assert jose_hsm(unwritable, "migrate").returncode == 0  # for there is nothing to do
    [line] = audited(settings)
    assert line["endpoint"] == "cli.migrate"


@pytest.mark.parametrize("name", [" x", "x ", "token: x", "token:", "\ufffd"])
def test_a_token_is_for_somebody(run, name):
    assert "without blanks" in run("token", "create", "--principal", name, status=2).stderr


def test_a_grant_replaces_the_one_before_and_counts_at_once(run, callers, settings):
    kid = callers.alice.create(kty="oct", alg="HS256")["kid"]
    body = {"kid": kid, "alg": "HS256", "data": ""}
    done = run("keys", "grant", "--json", kid, "token:bob", "mac", "read")
    assert json.loads(done.stdout)["grants"] == {"token:bob": ["mac", "read"]}
    assert callers.bob.post("/mac", body).status == 200
    run("keys", "grant", kid, "token:bob", "read")
    assert callers.bob.post("/mac", body).refusal == (403, "forbidden")
    assert callers.bob.get(f"/keys/{kid}").status == 200
    run("keys", "grant", kid, "token:bob")
    assert callers.bob.get(f"/keys/{kid}").refusal == (403, "forbidden")
    assert [(line["grantee"], line["operations"]) for line in audited(settings)] == [
        ("token:bob", ["mac", "read"]),
        ("token:bob", ["read"]),
        ("token:bob", []),
    ]


def test_an_alias_names_a_key_and_the_audit_log_has_its_kid(run, callers, settings):
    alias = f"key:{uuid4().hex}"
    kid = callers.alice.create(kty="oct", alg="HS256", alias=alias)["kid"]
    assert json.loads(run("keys", "show", "--json", alias).stdout)["kid"] == kid
    run("keys", "grant", alias, "token:bob", "mac")
    run("keys", "deactivate", alias)
    run("keys", "destroy", "--yes", alias)
    assert [line["kid"] for line in audited(settings)] == [kid] * 3
    assert "not found" in run("keys", "show", alias, status=2).stderr


def test_what_is_no_operation_principal_or_key_is_refused_in_one_line(run, callers):
    kid = callers.alice.create(kty="oct", alg="HS256")["kid"]
    for arguments in (
        ("keys", "grant", kid, "token:bob", "manage"),
        ("keys", "grant", kid, "bob", "mac"),
        ("keys", "grant", UNKNOWN, "token:bob", "mac"),
        ("keys", "show", "../x"),
        ("keys", "destroy", "--yes", UNKNOWN),
    ):
        done = run(*arguments, status=2)
        assert done.stderr.startswith("jose-hsm: ")
        assert done.stderr.count("\n") == 1
    assert callers.bob.post("/mac", {"kid": kid, "alg": "HS256", "data": ""}).status == 403


def test_tokens_too_are_in_the_audit_log_and_never_as_such(run, settings):
    made = json.loads(run("token", "create", "--principal", "x", "--json", "-r", "admin").stdout)
    run("token", "revoke", made["id"])
    lines = audited(settings)
    assert [line["endpoint"] for line in lines] == ["cli.token.create", "cli.token.revoke"]
    assert [line["token"] for line in lines] == [made["id"], made["id"]]
    assert (lines[0]["bearer"], lines[0]["roles"]) == ("token:x", ["admin"])
    assert made["token"] not in json.dumps(lines)


def test_what_cannot_be_recorded_is_not_done(run, callers, settings, tmp_path):
    kid = callers.alice.create(kty="oct", alg="HS256")["kid"]
    looks = ("keys", "show", "--json", kid), ("token", "list", "--json")
    before = [run(*look).stdout for look in looks]
    settings["JOSE_HSM_AUDIT_LOG"] = str(tmp_path / "none" / "audit.log")
    for arguments in (
        ("keys", "compromise", kid),
        ("keys", "grant", kid, "token:bob", "mac"),
        ("keys", "destroy", "--yes", kid),
        ("token", "create", "--principal", "x"),
        ("backup", "--without-token", str(tmp_path / "backup")),
    ):
        refused = run(*arguments, status=2)
        assert refused.stdout == ""
        assert refused.stderr.startswith("jose-hsm: nothing is done: the audit log cannot be ")
        assert refused.stderr.count("\n") == 1
    assert [run(*look).stdout for look in looks] == before
    assert not (tmp_path / "backup").exists()


def test_what_nobody_mends_meanwhile_is_not_waited_for(run, settings, tmp_path):
    settings["JOSE_HSM_PIN_FILE"] = str(tmp_path / "none")
    said = run("reconcile", status=2).stderr.splitlines()
    assert said[-1] == "jose-hsm: Service unavailable: the PIN file cannot be read"
    assert len(said) < 5  # a line for each time that it was looked for


def test_settings_name_administrators_and_auditors(environment, serve, callers):
    named = {
        "JOSE_HSM_ADMINS": "mtls:subject:CN=x,O=y | token:boss",
        "JOSE_HSM_AUDITORS": "token:clerk",
    }
    kid = callers.alice.create(kty="oct", alg="HS256")["kid"]
    change = {"json": {"name": "x"}}
    with serve(environment | WITH_TOKENS | named, workers=1) as url:
        boss, clerk, bob = (
            Api.over_http(url, bearer=token_for(environment, f"token:{name}"))
            for name in ("boss", "clerk", "bob")
        )
        assert boss.request("PATCH", f"/keys/{kid}", **change).status == 200
        assert boss.post("/mac", {"kid": kid, "alg": "HS256", "data": ""}).status == 403
        assert clerk.get(f"/keys/{kid}").status == 200
        assert clerk.request("PATCH", f"/keys/{kid}", **change).status == 403
        assert bob.get(f"/keys/{kid}").status == 403


@pytest.fixture
def file(settings: dict[str, str], tmp_path: Path) -> Path:
    """The settings in a file such as systemd reads."""
    path = tmp_path / "settings"
    path.write_text("# of the service\n" + "".join(f'{n}="{v}"\n' for n, v in settings.items()))
    return path


def test_settings_of_a_file_count_more_than_the_environment(file, settings):
    """SOFTHSM2_CONF, too, which the token's library reads."""
    others = dict.fromkeys(settings, "/nowhere")
    done = jose_hsm(others, "--settings", str(file), "token", "create", "--principal", "file")
    assert done.returncode == 0, done
    done = jose_hsm(others, "--settings", str(file), "reconcile", "--dry-run")
    assert "unavailable" not in done.stderr, done
    (line,) = audited(settings)
    assert line["bearer"] == "token:file"


def test_an_empty_variable_is_none_beside_what_was_left_in_the_state_directory(file, settings):
    empty = dict.fromkeys(settings, "") | {"JOSE_HSM_STATE_DIR": str(file.parent)}
    done = jose_hsm(empty, "config", "show")
    assert (done.returncode, done.stderr) == (0, "")
    assert settings["JOSE_HSM_TOKEN_LABEL"] in done.stdout


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("JOSE_HSM_SESION=4", "unknown setting JOSE_HSM_SESION; did you mean JOSE_HSM_SESSIONS?"),
        ("JOSE_HSM_SESSIONS", "not of the form NAME=VALUE"),
        (
            "JOSE_HSM_SESSIONS=no",
            "JOSE_HSM_SESSIONS must be a whole number above 0, 10000 at most",
        ),
    ],
)
def test_a_wrong_line_of_the_file_ends_the_command(file, settings, text, reason):
    file.write_text(file.read_text() + text)
    done = jose_hsm(settings, "--settings", str(file), "keys", "list")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("jose-hsm: ")
    assert done.stderr.endswith(f"{reason}\n")


def test_a_file_that_is_not_there_ends_the_command(settings):
    done = jose_hsm(settings, "--settings", "/nowhere/settings", "keys", "list")
    assert done.returncode == 2
    assert done.stderr == "jose-hsm: /nowhere/settings cannot be read: No such file or directory\n"
