"""``jose-hsm --url``: keys and all that belongs to them, and a command for each endpoint."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)
from joserfc import jwe, jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from scripts.throwaway import ROOT
from tests.shared.api import leave_out_if_lacking
from tests.shared.authority import Authority
from tests.shared.command_line import CommandLine

PASSWORD = b"of the file"
DATA = b"data"
EXAMPLES = json.loads((ROOT / "scripts" / "openapi" / "examples.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def line(server):
    return CommandLine({"JOSE_HSM_URL": server})


# --- PEM in and out ---


def rsa_of_rfc_7516() -> Any:
    """The key of RFC 7516 A.1, as an example of the API has it."""
    made = [one["request"] for one in EXAMPLES if one["operation"] == "keys_create"]
    jwk = next(one for one in made if one["kty"] == "RSA" and "d" in one)
    return RSAKey.import_key({name: jwk[name] for name in ("kty", "n", "e", "d")}).private_key


KEYS: dict[str, Callable[[], Any]] = {
    "RSA": rsa_of_rfc_7516,
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "X25519": x25519.X25519PrivateKey.generate,
}


def public_pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def pem(key: Any, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))


@pytest.mark.parametrize("name", KEYS)
def test_a_key_of_a_pem_file_is_the_same_when_its_public_half_comes_out(line, live, lacks, name):
    leave_out_if_lacking(lacks, name)
    key = KEYS[name]()
    kid = line.json("keys", "import", piped=pem(key))["kid"]
    assert line.do("keys", "public", kid).out == public_pem(key)
    live.delete(kid)


SIGNED: dict[str, tuple[str, Any]] = {
    "RSA": ("PS256", RSAKey),
    "P-256": ("ES256", ECKey),
    "secp256k1": ("ES256K", ECKey),
    "Ed25519": ("Ed25519", OKPKey),
}


@pytest.mark.parametrize("name", SIGNED)
def test_another_library_verifies_by_the_file_what_an_imported_key_signs(line, live, lacks, name):
    alg, type_ = SIGNED[name]
    leave_out_if_lacking(lacks, name, alg)
    key = KEYS[name]()
    kid = line.json("keys", "import", "--alg", alg, piped=pem(key))["kid"]
    message = line.text("sign", kid, piped=DATA)
    peer = type_.import_key(public_pem(key))
    assert jws.deserialize_compact(message, peer, algorithms=[alg]).payload == DATA
    live.delete(kid)


@pytest.mark.parametrize("form", ["PEM", "PKCS#12"])
def test_a_key_file_may_have_a_password(line, live, tmp_path, form):
    key = KEYS["P-256"]()
    octets = pem(key, PASSWORD) if form == "PEM" else _pkcs12(key)
    (tmp_path / "password").write_bytes(PASSWORD + b"\n")
    (tmp_path / "wrong").write_bytes(b"another")
    typed = ("keys", "import", "--password-file")
    kid = line.json(*typed, tmp_path / "password", piped=octets)["kid"]
    assert line.do("keys", "public", kid).out == public_pem(key)
    live.delete(kid)
    refused = line.type(*typed, tmp_path / "wrong", piped=octets)
    assert (refused.status, refused.err) == (
        2,
        "jose-hsm: <stdin> is no private key in PEM, PKCS#8 or PKCS#12, or has another password\n",
    )
    refused = line.type("keys", "import", piped=octets)
    assert refused.err == "jose-hsm: the file has a password: add --password-file\n"


def _pkcs12(key: Any) -> bytes:
    encryption = BestAvailableEncryption(PASSWORD)
    return pkcs12.serialize_key_and_certificates(b"key", key, None, None, encryption)


def test_a_jwk_keeps_what_it_says_and_gets_what_is_typed(line, live):
    jwk = ECKey.generate_key("P-256", private=True).as_dict(private=True) | {"alg": "ES256"}
    typed = ("keys", "import", "--name", "from a file", "--tag", "old", "--tag", "spare")
    kid = line.json(*typed, piped=json.dumps(jwk).encode())["kid"]
    shown = line.json("keys", "show", kid)
    assert (shown["alg"], shown["name"], shown["tags"]) == (
        "ES256",
        "from a file",
        ["old", "spare"],
    )
    live.delete(kid)


def test_the_bytes_of_a_secret_key_are_those_of_another_library(line, live):
    octets = bytes(range(32))
    kid = line.json("keys", "import", "--secret", "--alg", "A256GCM", piped=octets)["kid"]
    message = line.text("encrypt", kid, piped=DATA)
    assert jwe.decrypt_compact(message, OctKey.import_key(octets)).plaintext == DATA
    live.delete(kid)


@pytest.mark.parametrize("octets", [b"", b"no key", b"{", b"[1]", b"-----BEGIN PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused_before_anything_is_sent(line, octets):
    typed = line.type("keys", "import", piped=octets)
    assert (typed.status, typed.out) == (2, b"")
    assert typed.err.startswith("jose-hsm: <stdin> ")
    assert typed.err.count("\n") == 1


# --- What a person need not type ---


@pytest.mark.parametrize(
    ("alg", "kty", "crv"),
    [("ES384", "EC", "P-384"), ("HS256", "oct", None), ("A256GCM", "oct", None)],
)
def test_the_kind_of_a_key_follows_from_its_algorithm(line, live, alg, kty, crv):
    made = line.json("keys", "create", "--alg", alg)
    assert (made["kty"], made.get("crv")) == (kty, crv)
    live.delete(made["kid"])


@pytest.mark.parametrize("arguments", [(), ("--alg", "ECDH-ES"), ("--alg", "none")])
def test_a_kind_that_does_not_follow_is_asked_for(line, arguments):
    typed = line.type("keys", "create", *arguments)
    assert typed.status == 2
    assert typed.err.startswith("jose-hsm: which kind of key")


def test_a_key_that_does_several_algorithms_needs_one(line, live):
    kid = live.shared(kty="EC", crv="P-256")["kid"]
    typed = line.type("sign", kid, piped=DATA)
    assert typed.err == "jose-hsm: the key does more than one algorithm: add --alg\n"
    assert line.text("sign", kid, "--alg", "ES256", piped=DATA).startswith("ey")


def test_the_same_text_makes_one_key(line, live):
    typed = ("keys", "create", "--alg", "HS256", "--idempotency-key", uuid4().hex)
    first = line.json(*typed)
    assert line.json(*typed) == first
    live.delete(first["kid"])


def test_lists_go_on_to_the_last_page(line, live, monkeypatch):
    monkeypatch.setattr("app.client.service.MOST_LISTED", 2)
    tag = uuid4().hex
    made = {line.json("keys", "create", "--alg", "HS256", "--tag", tag)["kid"] for _ in range(3)}
    assert {key["kid"] for key in line.json("keys", "list", "--tag", tag)} == made
    head, *rows = line.text("keys", "list", "--tag", tag).splitlines()
    assert head.split()[:5] == ["kid", "kty", "alg", "state", "owner"]
    assert {row.split()[0] for row in rows} == made
    for kid in made:
        live.delete(kid)


def test_nothing_is_destroyed_where_nobody_can_be_asked(line, live):
    kid = live.create(kty="oct", alg="HS256")["kid"]
    typed = line.type("keys", "destroy", kid)
    assert (typed.status, typed.err) == (2, "jose-hsm: there is nobody to ask: add --yes\n")
    assert live.get(f"/keys/{kid}").status == 200
    line.do("keys", "destroy", "--yes", kid)
    assert live.get(f"/keys/{kid}").status == 404


def test_a_key_goes_through_its_states(line, live):
    kid = live.create(kty="oct", alg="HS256")["kid"]
    states = {"deactivate": "deactivated", "activate": "active", "compromise": "compromised"}
    for command, state in states.items():
        assert line.json("keys", command, kid)["state"] == state
    live.delete(kid)


def test_a_principal_may_have_any_name(line, live):
    kid = live.create(kty="oct", alg="HS256")["kid"]
    for principal in ("*", "jwt:https://idp.example/a b?c#d", "mtls:CN=Zoë,O=Example"):
        assert line.json("grants", "give", kid, principal, "read")["principal"] == principal
        assert principal in line.text("grants", "list", kid)
        line.do("grants", "take", kid, principal)
    assert line.json("grants", "list", kid)["grants"] == []
    live.delete(kid)


def test_a_member_that_is_empty_is_taken_away(line, live):
    kid = live.create(kty="oct", alg="HS256", name="old", expires="2999-01-31T12:00:00Z")["kid"]
    shown = line.json("keys", "change", kid, "--name", "", "--expires", "")
    assert (shown["name"], shown["expires"]) == (None, None)
    assert line.type("keys", "change", kid).err == "jose-hsm: change what? See --help\n"
    live.delete(kid)


def test_a_certificate_is_asked_for_in_pem_and_kept(line, live, tmp_path):
    kid = live.create(kty="EC", crv="P-256", alg="ES256")["kid"]
    typed = ("--subject", "CN=signer", "--subject", "O=Example", "--dns", "signer.example")
    asked = x509.load_pem_x509_csr(line.do("certificates", "request", kid, *typed).out)
    assert asked.is_signature_valid
    assert asked.subject.rfc4514_string() == "O=Example,CN=signer"
    assert asked.public_key() == ECKey.import_key(line.do("keys", "public", kid).out).public_key
    twice = ("--subject", "OU=one", "--subject", "OU=two")
    for wrong in (("--subject", "signer"), twice):
        assert line.type("certificates", "request", kid, *wrong).status == 2
    live.delete(kid)

    issued, key = Authority(tmp_path, "authority").issue("leaf", common_name="signer")
    kid = line.json("keys", "import", key)["kid"]
    assert "x5c" in line.json("certificates", "put", kid, issued)["jwk"]
    line.do("certificates", "remove", kid)
    assert "x5c" not in line.json("keys", "public", kid)
    live.delete(kid)
