"""Two tokens with one key-encryption key serve one registry; another key takes its place."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app.config import Config
from app.keys.wrapped.rewrapping import Rewrapping
from app.operator.cli.kek.files import read_parcel, read_recipient
from app.operator.cli.service import opened
from app.registry import Key, Registry
from app.registry.rows.keks import Keks
from app.registry.tables import keys
from app.terminal.failure import CommandFailed
from hsm import Blob
from scripts.throwaway import make_token
from tests.shared.api import Api, b64u
from tests.shared.command import jose_hsm
from tests.shared.documents import DOCUMENTS
from tests.shared.drivers import dies, killed
from tests.shared.forks import server
from tests.shared.postgresql import programs
from tests.shared.tokens import require

DATA = b64u(b"data")
SIGNERS: dict[str, dict[str, Any]] = {
    "RS256": {"kty": "RSA", "bits": 2048},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "ES384": {"kty": "EC", "crv": "P-384"},
    "ES512": {"kty": "EC", "crv": "P-521"},
    "ES256K": {"kty": "EC", "crv": "secp256k1"},
}
EC = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
MAC = {"kty": "oct", "alg": "HS256"}
SECRETS = ("A256GCM", "A128CBC-HS256")


class Host(NamedTuple):
    """A token of its own, and the settings of a service on it."""

    settings: dict[str, str]

    def kek(self, *arguments: str | Path) -> Any:
        return jose_hsm(self.settings, "kek", *map(str, arguments), "--json")

    def told(self, *arguments: str | Path) -> Any:
        done = self.kek(*arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def hosts(directory: Path, url: str | None = None, make: str = "softhsm") -> tuple[Host, Host]:
    """Two hosts with one registry, that at ``url`` if there is one."""
    one, two = (make_token(directory / name / "state", make) for name in ("one", "two"))
    url = url or Config.from_env(one).registry_url
    common = {"JOSE_HSM_DATABASE_URL": url, "JOSE_HSM_STORAGE": "wrapped"}
    return Host(one | common), Host(two | common)


def commands() -> list[tuple[str, list[str]]]:
    """What docs/two-hosts.md has typed on each host, from the name of the command on."""
    (block,) = DOCUMENTS["docs/two-hosts.md"].sections["A token each"]
    lines = re.findall(r"^(one|two)\$ jose-hsm kek ([^#\n]+)", block.code, re.MULTILINE)
    assert len(lines) == block.code.count("\n")
    return [(host, words.split()) for host, words in lines]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keks")


@pytest.fixture(scope="module")
def pair(directory: Path, request: pytest.FixtureRequest) -> tuple[Host, Host]:
    """Two hosts, of which the second has got the key of the first.

    Their registry is on PostgreSQL, as that of two machines has to be, where it is installed.
    """
    url = request.getfixturevalue("postgresql").registry() if programs() else None
    one, two = hosts(directory, url)
    told: dict[str, str] = {}
    keks = set()
    for host, words in commands():
        meant: dict[str, str | Path] = {word: directory / word for word in words if "." in word}
        meant["THUMBPRINT"] = told.get("thumbprint", "")
        told = {"one": one, "two": two}[host].told(*(meant.get(word, word) for word in words))
        keks.add(told.get("kek"))
    assert len(keks - {None}) == 1
    return one, two


@pytest.fixture(scope="module")
def services(pair: tuple[Host, Host]) -> Iterator[tuple[Api, Api]]:
    one, two = pair
    with (
        server(one.settings, workers=1) as first,
        server(two.settings, workers=1) as second,
    ):
        yield Api.over_http(first.url), Api.over_http(second.url)


@pytest.mark.parametrize("alg", SIGNERS)
def test_what_one_host_has_made_the_other_signs_with(services, alg):
    one, two = services
    key = one.create(**SIGNERS[alg], alg=alg)
    assert key["storage"] == "wrapped"
    jws = two.ok("/sign", {"kid": key["kid"], "alg": alg, "data": DATA})
    assert one.ok("/verify", jws | {"payload": DATA})["valid"] is True


@pytest.mark.parametrize("alg", SECRETS)
def test_what_one_host_has_encrypted_the_other_decrypts(services, alg):
    one, two = services
    key = two.create(kty="oct", alg=alg)
    jwe = two.ok("/encrypt", {"kid": key["kid"], "alg": "dir", "enc": alg, "data": DATA})
    assert one.ok("/decrypt", jwe)["data"] == DATA


def test_a_code_of_one_host_is_that_of_the_other(services):
    one, two = services
    key = one.create(kty="oct", alg="HS256")
    body = {"kid": key["kid"], "alg": "HS256", "data": DATA}
    assert one.ok("/mac", body)["mac"] == two.ok("/mac", body)["mac"]


def test_a_key_that_came_with_a_message_is_kept_too(services):
    one, two = services
    key = one.create(kty="oct", alg="A256KW")
    message = {"alg": "A256KW", "enc": "A256GCM", "data": DATA}
    kept = two.ok("/keys/unwrap", one.ok("/encrypt", message | {"kid": key["kid"]}))
    assert kept["storage"] == "wrapped"
    jwe = one.ok("/encrypt", message | {"kid": kept["kid"], "alg": "dir"})
    assert two.ok("/decrypt", jwe)["data"] == DATA


def test_a_key_is_destroyed_on_both(services):
    one, two = services
    key = one.create(kty="EC", crv="P-256", alg="ES256")
    body = {"kid": key["kid"], "alg": "ES256", "data": DATA}
    assert two.post("/sign", body).status == 200
    assert one.delete(key["kid"]).status == 204
    assert two.post("/sign", body).refusal == (404, "not_found")


def test_it_is_exported_for_nobody_else(pair, directory, tmp_path):
    done = pair[0].kek("export", directory / "two.jwk", tmp_path / "kek", "--thumbprint", "x" * 43)
    assert done.returncode == 2
    assert "thumbprint" in done.stderr
    assert not (tmp_path / "kek").exists()


def test_one_that_came_in_goes_no_further(pair, directory, tmp_path):
    one, two = pair
    prepared = one.told("import", "--prepare", tmp_path / "one.jwk")
    done = two.kek(
        *("export", tmp_path / "one.jwk", tmp_path / "kek"),
        *("--thumbprint", prepared["thumbprint"]),
    )
    assert done.returncode == 2
    assert not (tmp_path / "kek").exists()


def exported(one: Host, two: Host, directory: Path) -> Path:
    """Return a file with a new key of ``one``, wrapped for ``two``."""
    one.told("create", "--exportable")
    prepared = two.told("import", "--prepare", directory / "two.jwk")
    one.told(
        *("export", directory / "two.jwk", directory / "kek.json"),
        *("--thumbprint", prepared["thumbprint"]),
    )
    return directory / "kek.json"


@pytest.mark.parametrize("make", ["nss", pytest.param("kryoptic", marks=pytest.mark.long)])
def test_one_of_another_make_moves_too(make, tmp_path):
    require(make)
    one, two = hosts(tmp_path, make=make)
    two.told("import", exported(one, two, tmp_path))


@pytest.mark.parametrize("part", ["encrypting", "sealing"])
def test_what_was_changed_on_the_way_is_refused_and_leaves_nothing(tmp_path, part):
    one, two = hosts(tmp_path)
    whole = exported(one, two, tmp_path)
    [(form, members)] = json.loads(whole.read_bytes()).items()
    octets = members[part]
    members[part] = octets[:-1] + ("A" if octets[-1] != "A" else "Q")
    (tmp_path / "bad.json").write_text(json.dumps({form: members}))
    done = two.kek("import", tmp_path / "bad.json")
    assert done.returncode == 2
    assert "cannot be imported" in done.stderr
    two.told("import", whole)  # as it was it is taken


@pytest.mark.parametrize("read", [read_parcel, read_recipient])
@pytest.mark.parametrize("text", ["", "[]", '{"alg": 1}', "[" * 100_000])
def test_another_file_is_refused(tmp_path, read, text):
    (tmp_path / "file").write_text(text)
    with pytest.raises(CommandFailed, match="is not what"):
        read(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


def test_a_second_one_is_made_only_if_that_is_said(pair):
    done = pair[0].kek("create")
    assert done.returncode == 2
    assert "--another" in done.stderr


# --- Rotation ---


def die_rotating(after: int) -> None:
    """Be the command that is killed when it has encrypted so many keys anew."""
    config, replace = Config.from_env(), Keks.replace
    done: list[Key] = []

    def count(keks: Keks, key: Key, blob: Blob) -> bool:
        if len(done) == after:
            killed()
        done.append(key)
        return replace(keks, key, blob)

    registry = Registry(config.registry_url, host="test")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Keks, "replace", count)
        Rewrapping(registry=registry, keeping=opened(config).keeping).run(lambda _number: None)


def under(registry: Registry) -> dict[str, int]:
    """How many keys are under each key-encryption key."""
    return {str(kek): number for kek, number in registry.keks.in_use().items()}


NONE_LEFT: dict[str, Any] = {"broken": [], "unreadable": [], "lacking": {}}
LACKING = ("00000000-0000-4000-8000-000000000000", "ffffffff-ffff-4fff-bfff-ffffffffffff")


def test_keys_whose_key_encryption_key_is_on_another_token_keep_no_others_from_it(tmp_path):
    host, _ = hosts(tmp_path)
    host.told("create")
    config = Config.from_env(host.settings)
    with server(host.settings, workers=1) as running:
        kids = [
            key["kid"] for key in Api.over_http(running.url).ok("/keys", {**EC, "count": 5})["keys"]
        ]
    new = host.told("create", "--another")["kek"]
    registry = Registry(config.registry_url, host="test")
    with registry._database.writing() as connection:
        for kid, kek in zip(kids, LACKING, strict=False):
            change = keys.update().where(keys.c.kid == kid).values(kek=kek)
            connection.execute(change)
    done = host.kek("rotate")
    lacking = dict.fromkeys(LACKING, 1)
    assert (done.returncode, json.loads(done.stdout)) == (
        1,
        {"kek": new, "rewrapped": 3, "left": 2} | NONE_LEFT | {"lacking": lacking},
    )
    assert under(registry) == {new: 3} | lacking
    said = jose_hsm(host.settings, "kek", "rotate")
    assert said.returncode == 1
    for kek in LACKING:
        assert f"  {kek}: 1\n" in said.stdout
    registry._database.engine.dispose()


def test_rows_that_cannot_be_read_are_passed_over_and_named(tmp_path):
    host, _ = hosts(tmp_path)
    old = host.told("create")["kek"]
    with server(host.settings, workers=1) as running:
        api = Api.over_http(running.url)
        made = [*api.ok("/keys", MAC | {"count": 100})["keys"], api.create(**MAC)]
    *unreadable, last = sorted(key["kid"] for key in made)
    new = host.told("create", "--another")["kek"]
    registry = Registry(Config.from_env(host.settings).registry_url, host="test")
    with registry._database.writing() as connection:
        connection.execute(keys.update().where(keys.c.kid < last).values(alg="none"))
    done = host.kek("rotate")
    left = NONE_LEFT | {"unreadable": unreadable}
    assert json.loads(done.stdout) == {"kek": new, "rewrapped": 1, "left": 100} | left
    assert done.returncode == 1
    assert under(registry) == {new: 1, old: 100}
    registry._database.engine.dispose()


def test_keys_are_encrypted_anew_while_services_serve_whoever_dies_over_it(tmp_path):
    host, _ = hosts(tmp_path)
    old = host.told("create")["kek"]
    with server(host.settings, workers=1) as running:
        api = Api.over_http(running.url)
        kids = [key["kid"] for key in api.ok("/keys", {**EC, "count": 5})["keys"]]
        kids += [api.create(kty="oct", alg=alg)["kid"] for alg in SECRETS]
        new = host.told("create", "--another")["kek"]
        registry = Registry(Config.from_env(host.settings).registry_url, host="test")
        assert under(registry) == {old: 7}
        dies(host.settings, die_rotating, 3)
        assert under(registry) == {old: 4, new: 3}
        told = host.told("rotate")
        assert told == {"kek": new, "rewrapped": 4, "left": 0} | NONE_LEFT
        assert under(registry) == {new: 7}
        assert host.told("rotate")["rewrapped"] == 0
        registry._database.engine.dispose()
    with server(host.settings, workers=1) as running:
        api = Api.over_http(running.url)
        for kid in kids[:5]:
            jws = api.ok("/sign", {"kid": kid, "alg": "ES256", "data": DATA})
            assert api.ok("/verify", jws | {"payload": DATA})["valid"] is True
        for kid, alg in zip(kids[5:], SECRETS, strict=True):
            assert api.ok("/encrypt", {"kid": kid, "alg": "dir", "enc": alg, "data": DATA})
