"""``jose-hsm keysets``: what the operator sees and does, whoever owns the sets."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.keys.sets.catalogue import KeySetCatalogue
from app.operator import cli
from tests.shared.api import Api
from tests.shared.callers import WITH_TOKENS
from tests.shared.command import jose_hsm
from tests.shared.waiting import until

ROTATION = {"every": "P30D", "publish_ahead": "P1D", "retain": "P7D"}


@pytest.fixture
def settings(environment: Any, tmp_path: Path) -> dict[str, str]:
    """Those of this session, with an audit log of one's own."""
    return environment | WITH_TOKENS | {"JOSE_HSM_AUDIT_LOG": str(tmp_path / "audit.log")}


@pytest.fixture
def run(settings: dict[str, str]) -> Any:
    def run(*arguments: str, status: int = 0) -> str:
        done = jose_hsm(settings, "keysets", *arguments)
        assert done.returncode == status, done
        assert "Traceback" not in done.stderr
        return str(done.stdout)

    return run


def read(api: Api, name: str) -> dict[str, Any]:
    return dict(api.get(f"/keysets/{name}").body)


def test_a_key_set_of_anybody_is_shown_rotated_and_revoked(run, callers, settings):
    alice, name = callers.alice, f"set-{uuid4().hex}"
    body = {"kty": "EC", "crv": "P-256", "alg": "ES256", "rotation": ROTATION}
    made = alice.request("PUT", f"/keysets/{name}", json=body).body
    assert json.loads(run("show", "--json", name)) == made
    assert made["current"] in run("show", name)
    assert name in run("list")
    assert made in json.loads(run("list", "--json"))

    at = "2999-01-31T12:00:00Z"
    assert json.loads(run("rotate", "--json", "--at", at, name))["rotates"] == at
    run("rotate", name)
    until(lambda: read(alice, name)["versions"][-1]["version"] == 2)
    until(lambda: read(alice, name)["versions"][-1]["published"] is not None)

    run("revoke", name, made["current"])
    until(lambda: read(alice, name)["current"] != made["current"])
    states = {one["kid"]: one["state"] for one in read(alice, name)["versions"]}
    assert states[made["current"]] == "compromised"
    audit = Path(settings["JOSE_HSM_AUDIT_LOG"]).read_text().splitlines()
    lines = [json.loads(one) for one in audit]
    told = [(line["endpoint"], line["keyset"]) for line in lines]
    assert told == [(f"cli.keysets.{one}", name) for one in ("rotate", "rotate", "revoke")]

    for arguments in (
        ("show", "set-of-nobody"),
        ("revoke", name, "x"),
        ("rotate", "--at", "x", name),
    ):
        run(*arguments, status=2)


def test_a_rotation_is_recorded_though_the_set_has_rotated_meanwhile(
    callers, settings, monkeypatch
):
    name, described = f"set-{uuid4().hex}", KeySetCatalogue._described
    body = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
    assert callers.alice.request("PUT", f"/keysets/{name}", json=body).status == 200
    for setting in settings.items():
        monkeypatch.setenv(*setting)
    monkeypatch.setattr(
        KeySetCatalogue, "_described", lambda self, name: described(self, name) | {"rotates": None}
    )
    assert cli.main(["keysets", "rotate", name]) == 0
    (line,) = map(json.loads, Path(settings["JOSE_HSM_AUDIT_LOG"]).read_text().splitlines())
    assert (line["endpoint"], line["keyset"]) == ("cli.keysets.rotate", name)
    assert datetime.fromisoformat(line["rotates_at"]).tzinfo
