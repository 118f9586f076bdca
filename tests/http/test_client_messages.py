"""``jose-hsm --url``: messages from files and pipes, and libraries of others that read them."""

import hashlib
import json
import ssl
from base64 import b64encode
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from joserfc import jwe, jws
from joserfc.jwk import ECKey

from tests.shared.api import b64u, unb64u
from tests.shared.chains import certificate, der
from tests.shared.command_line import CommandLine

EC = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
DATA = b"line one\r\n\x00\xff and no end"
OTHER = b"other data"


@pytest.fixture
def line(server):
    return CommandLine({"JOSE_HSM_URL": server})


@pytest.fixture
def signer(live):
    return live.shared(**EC)["kid"]


@pytest.fixture
def foreign():
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def private_pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


# --- Signing ---


def test_another_library_verifies_what_is_signed_with_the_public_half_that_is_printed(line, signer):
    message = line.text("sign", signer, piped=DATA)
    for key in (
        ECKey.import_key(line.do("keys", "public", signer).out),
        ECKey.import_key(line.json("keys", "public", signer)),
    ):
        assert jws.deserialize_compact(message, key).payload == DATA


def test_files_and_pipes_hold_the_same_bytes(line, signer, tmp_path):
    (tmp_path / "data").write_bytes(DATA)
    line.do("sign", signer, tmp_path / "data", "--out", tmp_path / "jws")
    piped = (tmp_path / "jws").read_bytes()
    assert line.text("verify", tmp_path / "jws") == "valid"
    assert line.do("verify", "-", "--out", "-", piped=piped).out == DATA
    line.do("verify", "--out", tmp_path / "again", piped=piped)
    assert (tmp_path / "again").read_bytes() == DATA


def test_a_header_has_what_is_typed(line, signer, tmp_path):
    (tmp_path / "header").write_text('{"nonce":"n-1"}')
    typed = ("--typ", "JWT", "--cty", "text/plain", "--header", tmp_path / "header")
    protected = line.text("sign", signer, *typed, piped=DATA).partition(".")[0]
    header = json.loads(unb64u(protected))
    assert {name: header[name] for name in ("typ", "cty", "nonce")} == {
        "typ": "JWT",
        "cty": "text/plain",
        "nonce": "n-1",
    }


def test_what_is_signed_can_be_beside_the_signature(line, signer, tmp_path):
    (tmp_path / "data").write_bytes(DATA)
    message = line.text("sign", signer, tmp_path / "data", "--detached").encode()
    assert message.count(b"..") == 1
    assert line.text("verify", "--data", tmp_path / "data", piped=message) == "valid"
    in_json = line.do("sign", signer, tmp_path / "data", "--detached", "--json").out
    assert line.text("verify", "--data", tmp_path / "data", piped=in_json) == "valid"


def test_what_is_not_valid_has_a_status_of_its_own_and_is_not_printed(line, signer, tmp_path):
    (tmp_path / "data").write_bytes(OTHER)
    message = line.text("sign", signer, "--detached", piped=DATA).encode()
    typed = line.type("verify", "--data", tmp_path / "data", piped=message)
    assert (typed.status, typed.text) == (1, "not valid")
    named = ("verify", "--data", tmp_path / "data", "--out", tmp_path / "out")
    typed = line.type(*named, piped=message)
    assert (typed.status, typed.out, typed.err) == (1, b"", "jose-hsm: not valid\n")
    assert not (tmp_path / "out").exists()


def test_data_that_is_not_encoded_is_printed_as_it_is(line, signer, tmp_path):
    (tmp_path / "header").write_text('{"b64":false,"crit":["b64"]}')
    detached = line.text("sign", signer, "--header", tmp_path / "header", piped=b"plain text")
    protected, _, signature = detached.partition("..")
    flattened = {"protected": protected, "payload": "plain text", "signature": signature}
    piped = json.dumps(flattened).encode()
    assert line.do("verify", "--out", "-", piped=piped).out == b"plain text"


def test_the_data_of_a_message_in_json_is_printed_in_each_of_its_forms(line, live, signer):
    compact = line.text("sign", signer, piped=DATA)
    protected, payload, signature = compact.split(".")
    flattened = {"protected": protected, "payload": payload, "signature": signature}
    signers = [{"kid": signer, "alg": "ES256"}]
    general = {"serialization": "general", "signers": signers, "data": payload}
    for message in (
        {"jws": compact, "data": None},
        {"jws": f"{protected}..{signature}", "data": payload},
        flattened | {"jws": None, "signatures": None},
        live.ok("/sign", general),
    ):
        piped = json.dumps(message).encode()
        assert line.do("verify", "--out", "-", piped=piped).out == DATA


def test_a_header_that_nobody_looked_at_does_not_say_how_the_data_is_written(line, live, signer):
    signers = [{"kid": signer, "alg": "ES256"}]
    body = {"serialization": "general", "signers": signers, "data": b64u(DATA)}
    message = live.ok("/sign", body)
    header = {"alg": "ES256", "kid": str(uuid4()), "b64": False, "crit": ["b64"]}
    strange = {"protected": b64u(json.dumps(header)), "signature": b64u(bytes(64))}
    for signatures in ([strange, *message["signatures"]], [*message["signatures"], strange]):
        piped = json.dumps(message | {"signatures": signatures}).encode()
        typed = line.type("verify", "--out", "-", piped=piped)
        assert (typed.status, typed.out) == (0, DATA) or (typed.status > 0 and not typed.out)


def test_an_answer_in_json_goes_to_a_file_as_well(line, signer, tmp_path):
    line.do("sign", signer, "--json", "--out", tmp_path / "answer", piped=DATA)
    line.do("keys", "public", signer, "--json", "--out", tmp_path / "jwk")
    message = json.loads((tmp_path / "answer").read_text())["jws"]
    key = ECKey.import_key(json.loads((tmp_path / "jwk").read_text()))
    assert jws.deserialize_compact(message, key).payload == DATA


def test_a_key_of_somebody_else_verifies_as_jwk_as_pem_and_in_a_certificate(
    line, foreign, tmp_path
):
    key = ECKey.import_key(private_pem(foreign))
    message = jws.serialize_compact({"alg": "ES256"}, DATA, key).encode()
    (tmp_path / "pem").write_bytes(public_pem(foreign))
    (tmp_path / "jwk").write_text(json.dumps(key.as_dict(private=False)))
    for name in ("pem", "jwk"):
        assert line.text("verify", "--public-key", tmp_path / name, piped=message) == "valid"
    (tmp_path / "pem").write_bytes(public_pem(ec.generate_private_key(ec.SECP256R1())))
    assert line.type("verify", "--public-key", tmp_path / "pem", piped=message).status == 1


def test_a_key_on_a_curve_without_a_name_in_jose_is_read_by_no_command(line, tmp_path):
    key = ec.generate_private_key(ec.BrainpoolP256R1())
    (tmp_path / "private").write_bytes(private_pem(key))
    (tmp_path / "public").write_bytes(public_pem(key))
    for typed in (
        ("verify", "--public-key", tmp_path / "public"),
        ("encrypt", tmp_path / "public", "--key-file", "--alg", "ECDH-ES"),
        ("keys", "import", tmp_path / "private"),
    ):
        refused = line.type(*typed, piped=b"a..b")
        assert refused.status == 2
        assert "is of no type that is read here" in refused.err


def test_a_private_key_in_place_of_a_public_one_is_not_sent(line, foreign, tmp_path):
    jwk, pem = tmp_path / "jwk", tmp_path / "pem"
    jwk.write_text(json.dumps(ECKey.import_key(foreign).as_dict(private=True)))
    pem.write_bytes(private_pem(foreign) + b"-----BEGIN CERTIFICATE-----")
    for path, *typed in (
        (jwk, "verify", "--public-key", jwk),
        (jwk, "encrypt", jwk, "--key-file", "--alg", "ECDH-ES"),
        (pem, "certificates", "put", "key", pem),
    ):
        refused = line.type(*typed, piped=b"a..b")
        reason = f"jose-hsm: {path} holds a private key, which is not sent\n"
        assert (refused.status, refused.err) == (2, reason)


def test_what_no_library_reads_is_no_public_key(line, tmp_path):
    """A certificate of a version that there is not, and a key of an unknown algorithm."""
    path = tmp_path / "pem"
    issuer = ec.generate_private_key(ec.SECP256R1())
    one = der(certificate("signer", issuer.public_key(), "issuer", issuer))
    version_3, version_4 = map(bytes.fromhex, ("a003020102", "a003020103"))
    unknown = b64encode(bytes.fromhex("300a300506032a0304030100")).decode()
    for text in (
        ssl.DER_cert_to_PEM_cert(one.replace(version_3, version_4, 1)),
        f"-----BEGIN PUBLIC KEY-----\n{unknown}\n-----END PUBLIC KEY-----\n",
    ):
        path.write_text(text)
        typed = line.type("verify", "--public-key", path, piped=b"a..b")
        assert typed.err == f"jose-hsm: {path} is no public key, neither in PEM nor as a JWK\n"


@pytest.mark.parametrize("is_digest", [False, True])
def test_another_library_verifies_a_signature_without_a_header(line, signer, is_digest):
    signed = hashlib.sha256(DATA).digest() if is_digest else DATA
    raw = unb64u(line.text("sign-raw", signer, *["--digest"] * is_digest, piped=signed))
    r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    key: Any = load_pem_public_key(line.do("keys", "public", signer).out)
    key.verify(encode_dss_signature(r, s), DATA, ec.ECDSA(hashes.SHA256()))


# --- MACs ---


def test_a_mac_is_computed_compared_and_put_into_a_jws(line, live):
    kid = live.shared(kty="oct", alg="HS256")["kid"]
    mac = line.text("mac", kid, piped=DATA)
    assert line.text("mac", kid, "--check", mac, piped=DATA) == "valid"
    typed = line.type("mac", kid, "--check", mac, piped=OTHER)
    assert (typed.status, typed.text) == (1, "not valid")
    assert line.json("mac", kid, "--check", mac, piped=DATA) == {"kid": kid, "valid": True}
    whole = line.text("mac", kid, "--compact", "--typ", "JWT", piped=DATA).encode()
    assert line.do("verify", "--out", "-", piped=whole).out == DATA


# --- Encryption ---


@pytest.mark.parametrize("alg", ["A256GCM", "A128CBC-HS256", "A128KW", "A256GCMKW"])
def test_a_secret_key_encrypts_and_decrypts_as_it_says_itself(line, live, alg):
    kid = live.shared(kty="oct", alg=alg)["kid"]
    message = line.do("encrypt", kid, piped=DATA).out
    assert line.do("decrypt", piped=message).out == DATA


def test_additional_data_makes_a_json_object_that_is_read_again(line, live, tmp_path):
    kid = live.shared(kty="oct", alg="A256GCM")["kid"]
    (tmp_path / "aad").write_bytes(OTHER)
    line.do("encrypt", kid, "--aad", tmp_path / "aad", "--out", tmp_path / "jwe", piped=DATA)
    message = json.loads((tmp_path / "jwe").read_bytes())
    assert unb64u(message["aad"]) == OTHER
    assert line.do("decrypt", tmp_path / "jwe").out == DATA
    assert "ciphertext" in json.loads(line.text("encrypt", kid, "--flattened", piped=DATA))


def test_a_key_file_of_somebody_else_gets_what_his_own_library_decrypts(line, foreign, tmp_path):
    (tmp_path / "pem").write_bytes(public_pem(foreign))
    typed = ("encrypt", tmp_path / "pem", "--key-file", "--alg", "ECDH-ES+A128KW")
    message = line.text(*typed, piped=DATA)
    key = ECKey.import_key(private_pem(foreign))
    assert jwe.decrypt_compact(message, key).plaintext == DATA


def test_what_another_library_has_encrypted_is_decrypted(line, live):
    kid = live.shared(kty="EC", crv="P-256", alg="ECDH-ES")["kid"]
    key = ECKey.import_key(line.do("keys", "public", kid).out)
    header = {"alg": "ECDH-ES", "enc": "A128GCM"}
    message = jwe.encrypt_compact(header, DATA, key).encode()
    assert line.do("decrypt", "--key", kid, piped=message).out == DATA
    told = line.json("decrypt", "--key", kid, piped=message)
    assert unb64u(told["data"]) == DATA


def test_a_message_is_made_one_for_another_key_in_its_own_form(line, live):
    old, new = (live.create(kty="oct", alg="A256KW")["kid"] for _ in range(2))
    for form, start in (((), b"ey"), (("--flattened",), b"{")):
        message = line.do("encrypt", old, *form, piped=DATA).out
        moved = line.do("rewrap", "--to", new, piped=message).out
        assert moved.startswith(start)
        assert line.do("decrypt", "--key", new, piped=moved).out == DATA
    live.delete(old)
    live.delete(new)
