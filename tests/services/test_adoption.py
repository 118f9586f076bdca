"""Keys that somebody else has made on the token are taken in as they are."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from scripts.throwaway import LABEL, make_token
from tests.shared.api import Api
from tests.shared.command import jose_hsm
from tests.shared.waiting import PATIENCE_SECONDS

MAKE = f"""
import os, pkcs11
token = pkcs11.lib(os.environ["JOSE_HSM_PKCS11_MODULE"]).get_token(token_label="{LABEL}")
with token.open(rw=True, user_pin=open(os.environ["JOSE_HSM_PIN_FILE"]).read()) as session:
    session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label="old rsa", id=b"\\1")
    session.generate_key(pkcs11.KeyType.AES, 256, store=True, label="old aes", id=bytes(range(16)))
    session.generate_key(pkcs11.KeyType.AES, 192, store=True, label="old kek", id=b"\\2")
    curve = session.create_domain_parameters(
        pkcs11.KeyType.EC,
        {{pkcs11.Attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107")}},
        local=True,
    )
    curve.generate_keypair(store=True, label="old ec", id=b"\\3")
"""


@pytest.fixture
def own(tmp_path: Any) -> dict[str, str]:
    """A token with keys that are not ours."""
    own = make_token(tmp_path / "state")
    subprocess.run(
        [sys.executable, "-c", MAKE],
        env={**os.environ, **own},
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    return own


def keys(own: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return jose_hsm(own, "keys", *arguments)


def test_a_key_is_adopted_with_what_it_has_proven_and_works(own, serve):
    several = keys(own, "adopt", "old rsa", "--owner", "anonymous")
    assert (several.returncode, "RSA-OAEP-256" in several.stderr) == (2, True)
    signing = json.loads(
        keys(own, "adopt", "01", "--owner", "anonymous", "--alg", "PS256", "--json").stdout
    )
    assert (signing["origin"], signing["residency"], signing["alg"]) == (
        *("generated", "token"),
        "PS256",
    )
    uri = "pkcs11:object=old%20aes"
    aes = json.loads(keys(own, "adopt", uri, "--owner", "anonymous", "--json").stdout)
    assert aes["kid"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    kek, agreeing = (
        json.loads(keys(own, "adopt", *arguments, "--owner", "anonymous", "--json").stdout)
        for arguments in (("02", "--alg", "A192KW"), ("03", "--alg", "ECDH-ES+A128KW"))
    )
    assert (kek["size"], agreeing["crv"]) == (192, "P-256")
    assert keys(own, "adopt", "nothing", "--owner", "anonymous").returncode == 2
    with serve(own, workers=1) as url:
        api = Api.over_http(url)
        body = {"kid": signing["kid"], "alg": "PS256", "data": ""}
        assert api.ok("/verify", api.ok("/sign", body) | {"data": ""})["valid"] is True
        assert api.post("/sign", body | {"alg": "RS256"}).refusal == (422, "crypto_failure")
        body = {"kid": aes["kid"], "alg": "dir", "enc": "A256GCM", "data": "AAAA"}
        assert api.ok("/decrypt", api.ok("/encrypt", body))["data"] == "AAAA"
        for key in (kek, agreeing):
            body = {"kid": key["kid"], "alg": key["alg"], "enc": "A256GCM", "data": "AAAA"}
            assert api.ok("/decrypt", api.ok("/encrypt", body))["data"] == "AAAA"
