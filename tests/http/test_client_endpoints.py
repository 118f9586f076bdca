"""``jose-hsm --url`` has a command for each endpoint, or there is a reason."""

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import click
import pytest

from app.client.service import Service
from app.operator.cli import jose_hsm
from app.terminal.lazy import LazyCommand
from scripts.throwaway import ROOT
from tests.shared.api import b64u
from tests.shared.authority import Authority
from tests.shared.command_line import CommandLine

DATA = b64u("data")

COMMANDS = {
    "createKey": "keys create --alg HS256",
    "listKeys": "keys list --alg ES256 --state active --tag x --unused-since 2030-01-31",
    "createWrappingKey": "keys wrapping-key",
    "unwrapKey": "keys unwrap {files}/wrapped.jwe",
    "getKey": "keys show {pair}",
    "changeKey": "keys deactivate {pair}",
    "destroyKey": "keys destroy --yes {doomed}",
    "getPublicPem": "keys public {pair}",
    "restoreKey": "keys restore {deleted}",
    "listTags": "tags list {pair}",
    "addTags": "tags add {pair} one two",
    "removeTags": "tags remove {pair} one",
    "listGrants": "grants list {pair}",
    "grantKey": "grants give {pair} token:bob sign read",
    "revokeGrant": "grants take {pair} token:bob",
    "createCsr": "certificates request {signer} --subject CN=signer",
    "putCertificate": "certificates put {certified} {files}/leaf.crt",
    "removeCertificate": "certificates remove {pair}",
    "putKeySet": "keysets put {new} --alg ES256 --every P30D --publish-ahead P1D --retain P7D",
    "getKeySet": "keysets show {keyset}",
    "destroyKeySet": "keysets destroy --yes {doomed_set}",
    "listKeySets": "keysets list",
    "listKeySetGrants": "grants list --keyset {keyset}",
    "grantKeySet": "grants give --keyset {keyset} * verify",
    "revokeKeySetGrant": "grants take --keyset {keyset} *",
    "rotateKeySet": "keysets rotate {keyset} --at 2999-01-31T12:00:00Z",
    "revokeVersion": "keysets revoke {revoked_set} {version}",
    "createKeySetCsr": "certificates request --keyset {keyset} --dns a.example",
    "encrypt": "encrypt {aes} {files}/data",
    "decrypt": "decrypt {files}/direct.jwe",
    "rewrap": "rewrap {files}/wrapped.jwe --to {kek}",
    "sign": "sign --keyset {keyset} {files}/data",
    "rawSign": "sign-raw {signer} {files}/data",
    "verify": "verify {files}/jws",
    "mac": "mac {mac} {files}/data",
    "generateRandom": "random 16",
    "batch": "batch {files}/batch.json",
    "getCapabilities": "capabilities",
    "getJwks": "jwks --tag x",
    "getReady": "ready",
    "getIndex": "request GET /",
    "getOpenApi": "request GET /openapi.json",
    "getStrictOpenApi": "request GET /openapi-strict.json",
}
"""What to type for each operation of docs/openapi.json; braces stand for names and files."""

WITHOUT = {
    "getLive": "whether a process answers is asked by what has started it; `ready` says more",
    "getMetrics": "Prometheus reads it; `request GET /metrics` prints it",
}
OPERATIONS = {
    operation["operationId"]: (method.upper(), path)
    for path, methods in json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"].items()
    for method, operation in methods.items()
    if method != "parameters"
}


@pytest.fixture(scope="module")
def line(server):
    return CommandLine({"JOSE_HSM_URL": server})


@pytest.fixture(scope="module")
def names(line, live, tmp_path_factory) -> Iterator[dict[str, Any]]:
    """What the braces stand for: keys and files of these tests alone."""
    files = tmp_path_factory.mktemp("files")
    keys = {
        "pair": ("ES256",),
        "signer": ("ES256",),
        "aes": ("A256GCM",),
        "kek": ("A256KW",),
        "mac": ("HS256",),
        "doomed": ("HS256",),
        "deleted": ("HS256", "--destroy-after", "P1D"),
    }
    made = {
        name: line.json("keys", "create", "--alg", *typed)["kid"] for name, typed in keys.items()
    }
    line.do("keys", "destroy", "--yes", made["deleted"])
    sets = {name: f"{name}-{uuid4()}" for name in ("keyset", "doomed_set", "revoked_set")}
    for name in sets.values():
        line.do("keysets", "put", name, "--alg", "ES256")
    _issued, key = Authority(files, "authority").issue("leaf", common_name="signer")
    made["certified"] = line.json("keys", "import", key)["kid"]
    (files / "data").write_bytes(b"data")
    line.do("encrypt", made["aes"], files / "data", "--out", files / "direct.jwe")
    line.do("encrypt", made["kek"], files / "data", "--out", files / "wrapped.jwe")
    line.do("sign", made["signer"], files / "data", "--out", files / "jws")
    (files / "batch.json").write_text('{"requests":[{"op":"mac","body":{}}]}')
    version = line.json("keysets", "show", sets["revoked_set"])["current"]
    yield made | sets | {"files": files, "new": f"new-{uuid4()}", "version": version}
    for kid in made.values():
        live.delete(kid)
    for name in sets.values():
        live.request("DELETE", f"/keysets/{name}")


def test_every_endpoint_has_a_command_or_a_reason():
    assert COMMANDS.keys() | WITHOUT.keys() == OPERATIONS.keys()
    assert COMMANDS.keys() & WITHOUT.keys() == set()


@pytest.mark.parametrize("operation", COMMANDS)
def test_a_command_asks_its_endpoint(line, names, monkeypatch, operation):
    asked: list[tuple[str, str]] = []
    call = Service.call

    def noted(service: Service, method: str, target: str, *others: Any) -> Any:
        asked.append((method, target.partition("?")[0]))
        return call(service, method, target, *others)

    monkeypatch.setattr(Service, "call", noted)
    typed = [word.format(**names) for word in COMMANDS[operation].split()]
    line.do(*typed)
    method, path = OPERATIONS[operation]
    pattern = re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)))
    assert asked[-1][0] == method
    assert pattern.fullmatch(asked[-1][1])


def leaves(command: Any, context: click.Context) -> Iterator[click.Command]:
    if isinstance(command, LazyCommand):
        yield from leaves(command.load(), context)
    elif isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from leaves(command.get_command(context, name), context)
    else:
        yield command


def test_every_command_can_print_json():
    context = click.Context(jose_hsm)
    found = [leaf for top in jose_hsm.at_service.values() for leaf in leaves(top, context)]
    assert len(found) > len(jose_hsm.at_service)
    silent = [leaf.name for leaf in found if not any("--json" in one.opts for one in leaf.params)]
    assert silent == ["wrap"]  # what it prints is JSON, here and beside the service
