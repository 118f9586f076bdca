"""API tokens: made on the command line, borne in requests, revoked at once."""

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.auth import api_tokens
from app.config import Config
from app.operator import cli
from app.registry.databases.engines import engine_of
from app.registry.tables import tokens as table
from tests.shared.api import Api
from tests.shared.callers import Callers, token_for
from tests.shared.command import jose_hsm
from tests.shared.forks import server
from tests.shared.issuer import BAD, Issuer

UNAUTHORIZED = (401, "unauthorized")


@pytest.fixture(scope="module")
def callers(callers_of_each: Callers) -> Callers:
    """Each claim here is one of the registry, too."""
    return callers_of_each


@pytest.fixture
def run(callers: Callers) -> Any:
    """The command ``jose-hsm`` on the registry of the service."""

    def run(*arguments: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        done = jose_hsm(callers.environment, *arguments)
        assert done.returncode == status, done
        return done

    return run


def test_a_token_is_made_used_shown_and_revoked(run, callers):
    done = run("token", "create", "--principal", "ci", "--role", "auditor", "--name", "nightly")
    token = done.stdout.strip()
    assert re.fullmatch(r"jh_[A-Za-z0-9_-]{43}", token)
    api = Api.over_http(callers.url, bearer=token)
    kid = api.create(kty="oct", alg="HS256")["kid"]
    assert api.get(f"/keys/{kid}").body["owner"] == "token:ci"
    [row] = [
        row for row in json.loads(run("token", "list", "--json").stdout) if row["name"] == "nightly"
    ]
    assert (row["principal"], row["roles"], row["state"]) == ("token:ci", ["auditor"], "valid")
    assert row["used"] is not None
    assert token not in run("token", "list").stdout + run("token", "list", "--json").stdout
    assert row["id"] in run("token", "list").stdout
    run("token", "revoke", row["id"])
    for _ in range(6):  # any worker
        answer = Api.over_http(callers.url, bearer=token).get("/keys")
        assert answer.refusal == UNAUTHORIZED
    run("token", "revoke", "0000", status=1)


def test_two_tokens_of_a_principal_are_the_same_caller(run, callers):
    first, second = (
        Api.over_http(
            callers.url, bearer=run("token", "create", "--principal", name).stdout.strip()
        )
        for name in ("twin", "token:twin")
    )
    kid = first.create(kty="oct", alg="HS256")["kid"]
    assert second.get(f"/keys/{kid}").status == 200


@pytest.mark.parametrize(
    "expires",
    [
        "yesterday",
        "5",
        "2999-01-31T12:00:00",
        "9999999d",
        "-1d",
        "2999-13-01T00:00:00Z",
        "9999-01-01T00:00:00Z",
        "2020-01-01T00:00:00Z",
    ],
)
def test_what_is_no_expiry_is_refused(capsys, expires):
    assert cli.main(["token", "create", "--principal", "x", f"--expires={expires}"]) == 2
    printed = capsys.readouterr()
    assert "--expires" in printed.err
    assert printed.out == ""


def test_an_expiry_is_a_span_or_an_instant(run):
    for expires in ("90d", "2999-01-31T12:00:00Z"):
        done = run("token", "create", "--principal", "x", "--expires", expires, "--json")
        made = json.loads(done.stdout)
        assert datetime.fromisoformat(made["expires"]) > datetime.now(UTC)
        assert made["token"].startswith("jh_")


def test_only_the_hash_of_a_token_is_kept(callers):
    token = token_for(callers.environment, "token:hidden")
    engine = engine_of(Config.from_env(callers.environment).registry_url)
    with engine.connect() as connection:
        rows = connection.execute(table.select()).all()
    engine.dispose()
    assert all(token not in str(row) and token[3:] not in str(row) for row in rows)
    _, row = api_tokens.make("token:x", roles=(), name=None, expires_at=None)
    assert row.hash not in repr(row)


REFUSED = {
    "nothing": None,
    "empty": "",
    "scheme alone": "Bearer",
    "no token": "Bearer ",
    "Basic": "Basic YWxpY2U6YWxpY2U=",
    "unknown token": "Bearer jh_" + "A" * 43,
    "a JWT": "Bearer e30.e30.e30",
    "not ASCII": "Bearer jh_é".encode("latin-1"),
    "two tokens": "Bearer {good}, Bearer {good}",
    "longer": "Bearer {good}A",
    "shorter": "Bearer {good-1}",
    "as a user": "Basic {good}",
    "bare": "{good}",
}


@pytest.mark.parametrize("name", REFUSED)
def test_every_bad_credential_gets_the_same_answer(callers, name):
    good = token_for(callers.environment, "token:alice")
    value = REFUSED[name]
    if isinstance(value, str):
        value = value.replace("{good-1}", good[:-1]).replace("{good}", good)
    headers = {} if value is None else {"Authorization": value}
    answer = Api.over_http(callers.url).get("/keys", headers=headers)
    assert answer.refusal == UNAUTHORIZED
    assert answer.body["description"] == "Authentication required"
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="jose-hsm"'


def test_the_scheme_may_be_written_in_any_case(callers):
    token = token_for(callers.environment, "token:alice")
    for scheme in ("bearer", "BEARER", "Bearer"):
        headers = {"Authorization": f"{scheme} {token}"}
        assert Api.over_http(callers.url).get("/keys", headers=headers).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nothing"), ("POST", "/keys/x/y/z"), ("PUT", "/keys"), ("GET", "/v1"), ("BREW", "/")],
)
def test_nothing_is_told_to_somebody_unknown(callers, method, path):
    answer = Api.over_http(callers.url).request(method, path)
    assert answer.refusal == UNAUTHORIZED


def test_an_expired_token_is_refused(callers):
    token = token_for(callers.environment, "token:alice", age=timedelta(seconds=1))
    assert Api.over_http(callers.url, bearer=token).get("/keys").refusal == UNAUTHORIZED


NOBODY_WRITES = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "LOCK TABLE tokens IN EXCLUSIVE MODE"}


def test_a_use_that_cannot_be_written_is_no_matter(callers):
    token = token_for(callers.environment, "token:alice")
    engine = engine_of(Config.from_env(callers.environment).registry_url)
    with engine.connect() as connection:
        connection.exec_driver_sql(NOBODY_WRITES[connection.dialect.name])
        assert Api.over_http(callers.url, bearer=token).get("/keys").status == 200
    engine.dispose()


def test_no_credential_is_in_what_is_written(environment, tmp_path):
    issuer, log, audit = Issuer(), tmp_path / "log", tmp_path / "audit.log"
    (tmp_path / "jwks.json").write_text(issuer.jwks)
    settings = {
        **environment,
        **issuer.settings(tmp_path / "jwks.json"),
        "JOSE_HSM_LOG_LEVEL": "debug",
        "JOSE_HSM_AUDIT_LOG": str(audit),
    }
    good = {"a token": token_for(environment, "token:alice"), "a JWT": issuer.token()}
    bad = {"not a token": "jh_" + "B" * 43, "not a JWT": BAD["expired"](issuer)}
    borne = good | bad | {name + ", spoiled": good[name] + "A" for name in good}
    with log.open("wb") as file, server(settings, log=file) as running:
        for name, bearer in borne.items():
            answer = Api.over_http(running.url, bearer=bearer).post(
                "/keys", {"kty": "oct", "alg": "HS256"}
            )
            assert answer.status == (200 if name in good else 401), name
    written = log.read_text() + audit.read_text()
    assert "token:alice" in written
    assert "unknown API token" in written
    for bearer in borne.values():
        assert bearer not in written
        assert bearer.rpartition(".")[2].removeprefix("jh_")[:40] not in written


def test_without_authentication_everybody_is_anonymous(live):
    kid = live.create(kty="oct", alg="HS256")["kid"]
    assert live.get(f"/keys/{kid}").body["owner"] == "anonymous"
    answer = live.get("/keys", headers={"Authorization": "Bearer nonsense"})
    assert answer.status == 200
