"""Keys that somebody else has made on the token are taken in as they are."""

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app.config import Config
from app.keys.adoption import adopt
from app.operator.cli.service import opened
from app.registry import Registry
from scripts.throwaway import LABEL, make_token
from tests.shared.api import Api
from tests.shared.command import jose_hsm
from tests.shared.drivers import dies, killed
from tests.shared.forks import completed

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
    done = completed("python", [MAKE], own)
    assert done.returncode == 0, done
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


def test_a_key_that_the_registry_cannot_keep_now_is_adopted_later(own):
    typed = ("adopt", "old ec", "--owner", "anonymous", "--alg", "ES256")
    registry = Path(own["JOSE_HSM_STATE_DIR"], "registry.db")
    with closing(sqlite3.connect(registry, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        failed = keys(own, *typed)
    assert (failed.returncode, "the registry does not answer" in failed.stderr) == (2, True)
    assert keys(own, *typed).returncode == 0


def die_adopting(name: str) -> None:
    """Be the command that is killed when it has named the key, and not written the row."""
    config = Config.from_env()
    registry = Registry(config.registry_url, host="test")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(registry, "insert", killed)
        adopt(registry, opened(config), name, owner="anonymous", alg="ES256")


def test_a_key_whose_adoption_was_killed_is_adopted_by_its_kid(own, serve):
    dies(own, die_adopting, "old ec")
    (kid,) = re.findall(r"^  (\S+)$", jose_hsm(own, "reconcile").stdout, re.MULTILINE)
    typed = ("adopt", kid, "--owner", "anonymous", "--alg", "ES256", "--json")
    assert json.loads(keys(own, *typed).stdout)["kid"] == kid
    assert "one of ours already" in keys(own, *typed).stderr
    assert jose_hsm(own, "reconcile").returncode == 0
    with serve(own, workers=1) as url:
        api = Api.over_http(url)
        jws = api.ok("/sign", {"kid": kid, "alg": "ES256", "data": ""})
        assert api.ok("/verify", jws | {"data": ""})["valid"] is True


def test_what_the_service_has_for_itself_and_a_half_of_a_key_are_not_adopted(own, serve):
    with serve(own, workers=1) as url:
        kid = Api.over_http(url).create(kty="oct", alg="A128CBC-HS256")["kid"]
    registry = Path(own["JOSE_HSM_STATE_DIR"], "registry.db")
    with closing(sqlite3.connect(registry)) as other, other:
        other.execute("DELETE FROM keys WHERE kid = ?", (kid,))
    label = f"jose-hsm:{kid}"[:32]
    assert "one of the service itself" in refused(own, "jose-hsm:canary")
    assert "a half of one of ours" in refused(own, kid)
    assert "More than one key" in refused(own, label)


KEEP = f"""
import os, pkcs11
from pkcs11 import Attribute, KeyType
token = pkcs11.lib(os.environ["JOSE_HSM_PKCS11_MODULE"]).get_token(token_label="{LABEL}")
kept = {{Attribute.DESTROYABLE: False}}
with token.open(rw=True, user_pin=open(os.environ["JOSE_HSM_PIN_FILE"]).read()) as session:
    session.generate_key(KeyType.AES, 256, store=True, label="kept secret", template=kept)
    session.generate_keypair(
        KeyType.RSA, 2048, store=True, label="kept pair", id=b"\\4", public_template=kept
    )
"""


@pytest.mark.softhsm
@pytest.mark.parametrize(
    ("name", "operation", "members"),
    [
        ("kept secret", "/encrypt", {"alg": "dir", "enc": "A256GCM"}),
        ("kept pair", "/sign", {"alg": "PS256"}),
    ],
)
def test_a_key_that_nobody_may_destroy_is_refused_and_stays_as_it_is(
    name, operation, members, tmp_path, serve
):
    own = make_token(tmp_path / "state")
    assert completed("python", [KEEP], own).returncode == 0
    alg = members.get("enc", members["alg"])
    adopt = keys(own, "adopt", name, "--owner", "anonymous", "--alg", alg, "--json")
    kid = json.loads(adopt.stdout)["kid"]
    with serve(own, workers=1) as url:
        api = Api.over_http(url)
        assert api.request("PATCH", f"/keys/{kid}", json={"alias": "mine"}).status == 200
        assert api.ok(operation, members | {"kid": kid, "data": ""})
        assert api.delete(kid).refusal == (422, "crypto_failure")
        assert api.ok(operation, members | {"kid": "mine", "data": ""})
    destroyed = keys(own, "destroy", kid, "--yes")
    assert (destroyed.returncode, "does not let anybody destroy" in destroyed.stderr) == (2, True)
    assert json.loads(keys(own, "show", kid, "--json").stdout)["state"] == "active"


# --- Keys as other programs make them ---

OTHERS = f"""
import os, sys, pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from cryptography.hazmat.primitives.serialization import load_der_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hsm.cryptoki.attributes import PUBLIC_KEY_INFO, attribute_mapper
from hsm.cryptoki.material import CONVERSIONS

token = pkcs11.lib(os.environ["JOSE_HSM_PKCS11_MODULE"]).get_token(token_label="{LABEL}")
PIN = open(os.environ["JOSE_HSM_PIN_FILE"]).read()
P256 = bytes.fromhex("06082a8648ce3d030107")


def private(session, kind, label, number, file, attributes):
    key = load_der_private_key(open(file, "rb").read(), None)
    info = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if PUBLIC_KEY_INFO in attributes:
        attributes[PUBLIC_KEY_INFO] = info
    session.create_object({{
        Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.KEY_TYPE: kind, Attribute.TOKEN: True,
        Attribute.LABEL: label, Attribute.ID: bytes([number]), Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.SIGN: True,
        Attribute.DECRYPT: True, Attribute.UNWRAP: True, Attribute.DERIVE: True,
        **CONVERSIONS[kind.name].private(key), **attributes,
    }})


mapper = attribute_mapper()
mapper.register_handler(Attribute.LABEL, lambda text: text.encode("latin-1"), bytes)
with token.open(rw=True, user_pin=PIN, attribute_mapper=mapper) as session:
    printable = {{Attribute.EC_PARAMS: b"\\x13\\x0cedwards25519"}}
    curve = session.create_domain_parameters(KeyType.EC_EDWARDS, printable, local=True)
    curve.generate_keypair(
        store=True, label="ed25519", id=b"\\x11", mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN
    )
    session.generate_keypair(KeyType.RSA, 1024, store=True, label="short rsa", id=b"\\x12")
    oid = {{Attribute.EC_PARAMS: bytes.fromhex("06092b2403030208010107")}}
    brainpool = session.create_domain_parameters(KeyType.EC, oid, local=True)
    brainpool.generate_keypair(store=True, label="brainpool", id=b"\\x13")
    session.generate_key(KeyType.DES3, store=True, label="triple des", id=b"\\x14")
    session.generate_key(KeyType.AES, 256, store=True, label="gr\xfcn", id=b"\\x15")
    params = {{Attribute.EC_PARAMS: P256}}
    private(session, KeyType.RSA, "only rsa", 0x21, sys.argv[1], {{}})
    private(session, KeyType.EC, "only ec", 0x22, sys.argv[2], dict(params))
    private(session, KeyType.EC, "ec with info", 0x23, sys.argv[2],
            params | {{PUBLIC_KEY_INFO: None}})
"""


def der(key: Any) -> bytes:
    made: bytes = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return made


def pem(key: Any) -> bytes:
    made: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made


def of_others(directory: Path) -> dict[str, str]:
    """Make a token with keys as other programs make them, and PEM files of public halves."""
    own = make_token(directory / "state")
    own_ec, other_ec = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    (directory / "rsa.der").write_bytes(der(rsa.generate_private_key(65537, 2048)))
    (directory / "ec.der").write_bytes(der(own_ec))
    done = completed("python", [OTHERS, *(f"{directory}/{n}.der" for n in ("rsa", "ec"))], own)
    assert done.returncode == 0, done
    (directory / "state" / "right.pem").write_bytes(pem(own_ec))
    (directory / "state" / "wrong.pem").write_bytes(pem(other_ec))
    (directory / "state" / "brainpool.pem").write_bytes(
        pem(ec.generate_private_key(ec.BrainpoolP256R1()))
    )
    return own


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Such a token, of which nothing is adopted."""
    directory = tmp_path_factory.mktemp("others")
    yield of_others(directory)
    shutil.rmtree(directory)


def adopted(own: Mapping[str, str], *arguments: str) -> dict[str, Any]:
    done = keys(dict(own), "adopt", *arguments, "--owner", "anonymous", "--json")
    assert done.returncode == 0, done.stderr
    described: dict[str, Any] = json.loads(done.stdout)
    return described


def refused(own: Mapping[str, str], *arguments: str) -> str:
    done = keys(dict(own), "adopt", *arguments, "--owner", "anonymous")
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


REFUSALS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "an RSA key of 1024 bits": (("short rsa",), "Field 'n' must have 2048 to 4096 bits"),
    "an unknown curve": (("brainpool",), "of a kind, or on a curve, that no algorithm here is for"),
    "an unknown kind": (("triple des",), "of a kind, or on a curve, that no algorithm here is for"),
    "no public half": (("only ec", "--alg", "ES256"), "give it as PEM"),
    "the public half of another": (
        ("only ec", "--public-key", "wrong.pem"),
        "The key does nothing that the service offers",
    ),
    "a public half on another curve": (
        ("only ec", "--public-key", "brainpool.pem"),
        "The public key is not on the curve of the private one",
    ),
    "another public half than the token has": (
        ("ec with info", "--public-key", "wrong.pem"),
        "The public key that was given is not that of the token",
    ),
    "no PEM": (("only ec", "--public-key", "pin"), "not one in PEM"),
    "another token": (("pkcs11:token=other;object=ed25519",), "its 'token' is not of this one"),
    "another serial": (("pkcs11:serial=0;id=%11",), "its 'serial' is not of this one"),
    "another slot": (("pkcs11:slot-id=7;id=%11",), "its 'slot-id' is not of this one"),
    "another model": (("pkcs11:model=X;id=%11",), "its 'model' is not of this one"),
    "another maker": (("pkcs11:manufacturer=X;id=%11",), "its 'manufacturer' is not of this one"),
    "another library": (("pkcs11:library-version=9.9;id=%11",), "'library-version' is not of this"),
    "a secret key": (("pkcs11:type=secret-key;id=%11",), "not found"),
    "a certificate": (("pkcs11:type=cert;id=%11",), "another 'type' than: private, secret-key"),
    "another object": (("pkcs11:object=short%20rsa;id=%11",), "not found"),
    "an unknown attribute": (("pkcs11:x-mine=1;id=%11",), "'x-mine', which is not known"),
    "an attribute twice": (("pkcs11:id=%11;id=%11",), "not one of PKCS#11"),
    "a broken escape": (("pkcs11:id=%1",), "not one of PKCS#11"),
    "neither id nor object": (("pkcs11:type=private",), "neither 'id' nor 'object'"),
}


@pytest.mark.parametrize(("arguments", "text"), REFUSALS.values(), ids=REFUSALS)
def test_a_key_that_is_not_meant_or_not_fit_is_not_adopted(
    others: dict[str, str], arguments: tuple[str, ...], text: str
) -> None:
    directory = Path(others["JOSE_HSM_STATE_DIR"])
    assert text in refused(
        others,
        *(str(directory / one) if (directory / one).is_file() else one for one in arguments),
    )


def test_keys_of_other_programs_are_adopted_and_work(tmp_path: Path, serve: Any) -> None:
    own = of_others(tmp_path)
    directory = Path(own["JOSE_HSM_STATE_DIR"])
    uri = f"pkcs11:token={LABEL};manufacturer=SoftHSM%20project;model=SoftHSM%20v2;"
    made = {
        "EdDSA": adopted(own, f"{uri}type=private;id=%11?pin-value=no-digits"),
        "PS256": adopted(own, "only rsa", "--alg", "PS256"),
        "ES256": adopted(
            own, "only ec", "--alg", "ES256", "--public-key", str(directory / "right.pem")
        ),
        "ECDH-ES": adopted(own, "ec with info", "--alg", "ECDH-ES"),
        "A256GCM": adopted(own, "15", "--alg", "A256GCM"),
    }
    assert "no-digits" not in (directory / "audit.log").read_text("utf-8")
    with serve(own, workers=1) as url:
        api = Api.over_http(url)
        for alg in ("EdDSA", "PS256", "ES256"):
            jws = api.ok("/sign", {"kid": made[alg]["kid"], "alg": alg, "data": "AAAA"})
            assert api.ok("/verify", {**jws, "data": "AAAA"})["valid"] is True
            jwk = made[alg]["jwk"]
            assert api.ok("/verify", {**jws, "data": "AAAA", "jwk": jwk})["valid"] is True
        sent = {"kid": made["ECDH-ES"]["kid"], "alg": "ECDH-ES", "enc": "A256GCM", "data": "AAAA"}
        assert api.ok("/decrypt", api.ok("/encrypt", sent))["data"] == "AAAA"
        for key in made.values():
            assert api.delete(key["kid"]).status == 204
    assert keys(own, "adopt", "only rsa", "--owner", "anonymous").returncode == 2
