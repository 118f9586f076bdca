"""The examples work as they are, and all of them are tried."""

import copy
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from joserfc import jwk, jws

from scripts.throwaway import ROOT
from tests.shared.api import Api
from tests.shared.waiting import COMMAND

EXAMPLES = ROOT / "examples"
ALONE = {
    "curl/jwt.sh": "verified: true",
    "curl/wrap.sh": "verified: true",
    "python/decrypt.py": "decrypted: for your eyes only",
    "python/dpop.py": "proven: POST https://server.example.com/token",
    "python/sd_jwt_vc.py": "verified: given_name is Alice",
    "python/client_assertion.py": "verified: client",
    "python/acme_request.py": "verified: https://acme.example.com/acme/new-account",
    "python/nested_jwt.py": "verified: alice",
    "python/rewrap.py": "decrypted: record 99",
    "python/sign_file.py": f"verified: {256 * 2**20} bytes",
    "python/sign_joserfc.py": "verified: alice",
    "node/jwt.mjs": "verified: alice",
    "node/sign.mjs": "verified: alice",
    "node/decrypt.mjs": "decrypted: for your eyes only",
}
"""What each prints that needs nothing but the URL."""

SIGNER = "python/sign_pyjwt.py"
KEYS = "python/service_key.py"
VERIFIERS = ("python/verify_joserfc.py", "python/verify_pyjwt.py")
RECIPE = "ci/with-jose-hsm"
PIPELINES = ("ci/github-actions.yml", "ci/gitlab-ci.yml")
INTERPRETERS = {".sh": "bash", ".py": sys.executable, ".mjs": "node"}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples where somebody has copied them, beside what the tests have of npm."""
    directory = tmp_path_factory.mktemp("copied")
    shutil.copytree(EXAMPLES, directory / "examples")
    (directory / "node_modules").symlink_to(ROOT / "tests" / "node" / "node_modules")
    return directory / "examples"


def run(*command: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        check=False,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=COMMAND.seconds,
    )


def example(path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run(INTERPRETERS[path.suffix], path, *arguments)


def test_all_are_tried_and_in_the_index():
    tried = {*ALONE, SIGNER, KEYS, *VERIFIERS, RECIPE, *PIPELINES}
    index = (EXAMPLES / "README.md").read_text("utf-8")
    assert tried == set(re.findall(r"\]\((\S+)\)", index))
    assert tried | {"README.md"} == {
        str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*") if path.is_file()
    }


def test_each_says_first_what_to_install():
    for path in EXAMPLES.glob("*/*"):
        head = path.read_text("utf-8").removeprefix("#!/bin/bash\n").splitlines()[:4]
        assert "nstall " in "".join(head), path


@pytest.mark.parametrize("name", ALONE)
def test_it_shows_what_it_says(name, server, copied):
    done = example(copied / name, server)
    assert done.returncode == 0, done
    assert ALONE[name] in done.stdout.splitlines()
    assert done.stderr == ""


def test_what_is_signed_in_one_library_verifies_in_others_and_nothing_else_does(server, copied):
    token = example(copied / SIGNER, server).stdout.strip()
    protected, _, signature = token.split(".")
    forged = f"{protected}.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIn0.{signature}"
    for name in VERIFIERS:
        assert example(copied / name, token, server).stdout == "verified: alice\n"
        refused = example(copied / name, forged, server)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert re.search("BadSignature|InvalidSignature", refused.stderr)


# --- Keys that libraries sign with ---


@pytest.fixture(scope="module")
def private_key() -> Any:
    """What the example gives those who copy it."""
    return runpy.run_path(str(EXAMPLES / KEYS))["private_key"]


SIGNING: dict[str, tuple[dict[str, str], type[Any], str]] = {
    "RS256": ({"kty": "RSA"}, jwk.RSAKey, "PS384"),
    "ES256": ({"kty": "EC", "crv": "P-256"}, jwk.ECKey, "ES256"),
    "ES512": ({"kty": "EC", "crv": "P-521"}, jwk.ECKey, "ES512"),
    "EdDSA": ({"kty": "OKP", "crv": "Ed25519"}, jwk.OKPKey, "Ed25519"),
}
"""By what PyJWT signs with: a key, and how joserfc takes it and what it signs with."""


@pytest.mark.parametrize("alg", SIGNING)
def test_libraries_sign_with_a_key_of_the_service_and_verify(alg, live, server, private_key):
    members, taken, other_alg = SIGNING[alg]
    kid, algs = live.create(**members)["kid"], [other_alg]
    key = private_key(kid, server)
    token = jwt.encode({"sub": "alice"}, key, algorithm=alg)
    assert jwt.decode(token, key.public_key(), algorithms=[alg]) == {"sub": "alice"}
    public = live.get(f"/keys/{kid}").body["jwk"]
    theirs = taken(key, public)
    compact = jws.serialize_compact({"alg": other_alg}, b"data", theirs, algorithms=algs)
    opened = jws.deserialize_compact(compact, taken.import_key(public), algorithms=algs)
    assert opened.payload == b"data"


@pytest.fixture(scope="module")
def pair(live: Api) -> Any:
    return live.create(kty="EC", crv="P-256", alg="ES256")


def test_a_payload_that_is_not_encoded_is_signed_as_it_is(pair, server, private_key):
    key = private_key(pair["kid"], server)
    library = jwt.PyJWS()
    token = library.encode(b"$.02", key, "ES256", is_payload_detached=True)
    public = key.public_key()
    seen = library.decode(token, public, algorithms=["ES256"], detached_payload=b"$.02")
    assert seen == b"$.02"


def test_a_library_is_told_what_the_service_refuses(pair, live, server, private_key):
    other = live.create(kty="EC", crv="P-256", alg="ES256")
    key = private_key(pair["kid"], server)
    with pytest.raises(requests.HTTPError, match="422"):
        jwt.encode({}, key, algorithm="ES256", headers={"kid": other["kid"]})


@pytest.mark.parametrize("name", ["private_bytes", "private_numbers", "exchange"])
def test_such_a_key_stays_in_the_token(name, pair, server, private_key):
    key = private_key(pair["kid"], server)
    assert copy.deepcopy(key) is copy.copy(key) is key
    with pytest.raises(NotImplementedError, match="does not leave the token"):
        getattr(key, name)()


# --- Pipelines ---


def test_a_pipeline_gets_a_service_that_ends_with_its_command(tmp_path):
    script = """
        echo "$JOSE_HSM_URL"
        curl -sS "$JOSE_HSM_URL/v1/crypto/keys" -H 'Content-Type: application/json' \
            -d '{"kty":"oct","alg":"HS256"}'
        exit 7
    """
    settings = {"TMPDIR": str(tmp_path), "WEB_CONCURRENCY": "1", "JOSE_HSM_URL": "old"}
    done = run(EXAMPLES / RECIPE, "bash", "-c", script, **settings)
    url, answer = done.stdout.splitlines()
    assert done.returncode == 7
    assert '"alg":"HS256"' in answer
    assert run("curl", "-s", url).returncode == 7  # nobody listens
    assert list(tmp_path.iterdir()) == []


def test_a_pipeline_is_told_why_there_is_no_service(tmp_path):
    settings = {"TMPDIR": str(tmp_path), "JOSE_HSM_BINT": "x"}
    done = run(EXAMPLES / RECIPE, "echo", "not run", **settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert "did you mean JOSE_HSM_BIND?" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_calls_the_recipe(name):
    assert f"jose-hsm/examples/{RECIPE} " in (EXAMPLES / name).read_text("utf-8")
