"""What the RFCs print, as printed, to a live service: their keys imported, and named beside."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jwcrypto.jwk
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, utils
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)

from app.schemas.messages.serializations import JWE_PARTS
from tests.shared.api import Api, b64u, unb64u
from tests.shared.vector_counts import count

PRINTED = json.loads(Path(__file__).with_name("rfc_messages.json").read_text("utf-8"))
SEEDED: dict[
    str, type[mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey]
] = {
    "ML-DSA-44": mldsa.MLDSA44PrivateKey,
    "ML-DSA-65": mldsa.MLDSA65PrivateKey,
    "ML-DSA-87": mldsa.MLDSA87PrivateKey,
}
KEY_ECC_P256 = b"""\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIFKbhfNZfpDsW43+0+JjUr9K+bTeuxopu653+hBaXGA7oAoGCCqGSM49
AwEHoUQDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lfw0EkjqF7xB4FivAxzic30tMM
4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END EC PRIVATE KEY-----
"""
"""RFC 9421 B.1.3."""

Body = dict[str, Any]


class Kind(NamedTuple):
    """The parts of a message, and those that are of one signer or recipient."""

    name: str
    parts: tuple[str, ...]
    several: str
    own: frozenset[str]


JWS = Kind(
    "jws",
    ("protected", "payload", "signature"),
    "signatures",
    frozenset({"protected", "signature"}),
)
JWE = Kind("jwe", JWE_PARTS, "recipients", frozenset({"encrypted_key"}))


def of(kind: str) -> list[Any]:
    """The printed messages of a kind."""
    return [pytest.param(example, id=example["name"]) for example in PRINTED[kind]]


def forms(kind: Kind, message: Body) -> Iterator[Body]:
    """Give ``message`` as it is and, if all of its header is protected, in the other two forms."""
    yield message
    beside = {name: text for name, text in message.items() if name not in kind.parts}
    if beside.keys() <= {"data"}:
        yield {kind.name: ".".join(message.get(part, "") for part in kind.parts), **beside}
        own = {name: text for name, text in message.items() if name in kind.own}
        shared = {name: text for name, text in message.items() if name not in kind.own}
        yield {**shared, kind.several: [own]}


def imported(api: Api, key: Body) -> str:
    kid: str = api.create(**key["jwk"] | {"alg": key["alg"]})["kid"]
    return kid


def document(example: Body) -> str:
    """The RFC that prints it."""
    return str(example["name"][:8])


SECTIONS = {
    "RFC 7515": {f"A.{number}" for number in range(1, 8)},
    "RFC 7516": {f"A.{number}" for number in range(1, 6)},
    "RFC 7517": {"C"},
    "RFC 7520": {f"4.{number}" for number in range(1, 9)}
    | {f"5.{number}" for number in range(1, 14)},
    "RFC 8037": {"A.4"},
}


@pytest.mark.parametrize("name", SECTIONS)
def test_no_message_of_a_document_is_forgotten(name):
    examples = [one for kind in ("signed", "encrypted", "refused") for one in PRINTED[kind]]
    told = {one["name"].split()[2] for one in examples if document(one) == name}
    assert told == SECTIONS[name]


@pytest.mark.parametrize("example", of("signed"))
def test_a_jws_of_the_rfcs_is_verified_as_printed(live, example, record_property):
    message = example["message"]
    spoiled = message | {name: b64u("another") for name in ("payload", "data") if name in message}
    for number, key in enumerate(example["keys"]):
        kid = imported(live, key)
        for valid, tried in ((True, message), (False, spoiled)):
            for form in forms(JWS, tried):
                told = live.ok("/verify", form | {"kid": kid})
                assert (told["kid"], told["valid"]) == (kid, valid)
                each = [one["valid"] for one in told.get("signatures", ())]
                signers = range(len(form.get("signatures", ())))
                assert each == [valid if one == number else None for one in signers]
    count(record_property, document(example), 1)


@pytest.mark.parametrize("name", ["RFC 7515 A.2", "RFC 8037 A.4"])
def test_a_signature_without_a_random_part_is_made_again(live, name):
    [example] = [one for one in PRINTED["signed"] if one["name"] == name]
    message = example["message"]
    body = {"kid": imported(live, example["keys"][0]), "protected": message["protected"]}
    made = live.ok("/sign", body | {"data": message["payload"]})
    assert made["signature"] == message["signature"]


@pytest.mark.parametrize("example", of("encrypted"))
def test_a_jwe_of_the_rfcs_is_decrypted_as_printed(rsa1_5, example, record_property):
    message = example["message"]
    for key in example["keys"]:
        kid = imported(rsa1_5, key)
        for form in forms(JWE, message):
            answer = rsa1_5.ok("/decrypt", form | {"kid": kid})
            assert answer == {"kid": kid, "data": example["plaintext"]}
        for changed in ({"tag": b64u(bytes(16))}, {"aad": b64u("another")}):
            refused = rsa1_5.post("/decrypt", message | changed | {"kid": kid})
            assert refused.refusal == (422, "decryption_failed")
    count(record_property, document(example), 1)


@pytest.mark.parametrize(
    "example",
    [
        one
        for one in of("encrypted")
        if one.values[0]["message"].keys() & {"encrypted_key", "recipients"}
    ],
)
def test_the_key_of_a_jwe_of_the_rfcs_is_unwrapped(rsa1_5, example):
    message = example["message"]
    shared = json.loads(unb64u(message.get("protected", "e30"))) | message.get("unprotected", {})
    for key in example["keys"]:
        made = rsa1_5.ok("/keys/unwrap", message | {"kid": imported(rsa1_5, key)})
        assert (made["kty"], made["alg"]) == ("oct", shared["enc"])


@pytest.mark.parametrize("example", of("refused"))
def test_what_is_never_done_is_refused_as_printed(live, example, record_property):
    """No signature, keys of passwords, compressed content."""
    keys = example.get("keys", [{"jwk": {"kty": "oct"}, "alg": "A128KW"}])
    for key in keys:
        body = example["message"] | {"kid": imported(live, key)}
        assert live.post(example["path"], body).refusal == tuple(example["because"])
    count(record_property, document(example), 1)


# --- Keys: RFC 7517 ---


@pytest.fixture(scope="module")
def pairs(live: Api) -> list[str]:
    """Those of appendix A.2: one to encrypt to, without alg, and one that signs."""
    return [live.create(**key)["kid"] for key in PRINTED["RFC 7517"]["A.2"]]


def test_the_private_keys_of_rfc_7517_have_the_public_ones(live, pairs, record_property):
    for kid, public in zip(pairs, PRINTED["RFC 7517"]["A.1"], strict=True):
        jwk = live.get(f"/keys/{kid}").body["jwk"]
        for name in {"kty", "crv", "x", "y", "n", "e", "use"} & public.keys():
            assert jwk[name] == public[name]
    count(record_property, "RFC 7517", 4)


def test_a_public_key_of_rfc_7517_is_encrypted_to(live, pairs):
    jwk = PRINTED["RFC 7517"]["A.1"][0]
    body = {"jwk": jwk, "alg": "ECDH-ES", "enc": "A128GCM", "data": b64u("text")}
    made = live.ok("/encrypt", body)
    assert json.loads(unb64u(made["protected"]))["kid"] == jwk["kid"]
    opened = {"kid": pairs[0], "data": b64u("text")}
    assert live.ok("/decrypt", made | {"kid": pairs[0]}) == opened


def test_a_public_key_of_rfc_7517_verifies(live, pairs):
    made = live.ok("/sign", {"kid": pairs[1], "alg": "RS256", "data": b64u("text")})
    body = made | {"data": b64u("text")}
    assert live.ok("/verify", body | {"jwk": PRINTED["RFC 7517"]["A.1"][1]}) == {"valid": True}
    assert live.ok("/verify", body | {"jwk": PRINTED["RFC 7517"]["B"]}) == {"valid": False}


def test_the_symmetric_keys_of_rfc_7517_are_imported(live, record_property):
    wrapping, hashing = PRINTED["RFC 7517"]["A.3"]
    assert live.create(**wrapping)["alg"] == "A128KW"
    assert live.post("/keys", hashing).refusal == (400, "bad_request")  # which algorithm?
    assert live.create(**hashing, alg="HS256")["alg"] == "HS256"
    count(record_property, "RFC 7517", 3)


# --- Content that is not encoded: RFC 7797 §4 ---


@pytest.mark.parametrize(
    "message",
    [
        {"jws": "eyJhbGciOiJIUzI1NiJ9.JC4wMg.5mvfOroL-g7HyqJoozehmsaqmvTYGEq5jTI1gVvoEoQ"},
        {
            "jws": "eyJhbGciOiJIUzI1NiIsImI2NCI6ZmFsc2UsImNyaXQiOlsiYjY0Il19."
            ".A5dxf2s96_n5FLueVuW1Z_vh161FwXZC4YLPff6dmDY",
            "data": b64u("$.02"),
        },
        {
            "protected": "eyJhbGciOiJIUzI1NiIsImI2NCI6ZmFsc2UsImNyaXQiOlsiYjY0Il19",
            "payload": "$.02",
            "signature": "A5dxf2s96_n5FLueVuW1Z_vh161FwXZC4YLPff6dmDY",
        },
    ],
    ids=["4.1", "4.2 compact", "4.2 flattened"],
)
def test_the_messages_of_rfc_7797_are_verified_as_printed(live, message, record_property):
    kid = live.create(**PRINTED["RFC 7517"]["A.3"][1], alg="HS256")["kid"]
    assert live.ok("/verify", message | {"kid": kid}) == {"kid": kid, "valid": True}
    count(record_property, "RFC 7797", 1)


# --- Signatures of HTTP messages: RFC 9421 ---

SIGNED_RESPONSE = """\
"@status": 200
"content-type": application/json
"content-digest": sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41Q\
JgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:
"content-length": 23
"@signature-params": ("@status" "content-type" "content-digest" "content-length")\
;created=1618884473;keyid="test-key-ecc-p256\""""
SIGNED_REQUEST = """\
"date": Tue, 20 Apr 2021 02:07:55 GMT
"@method": POST
"@path": /foo
"@authority": example.com
"content-type": application/json
"content-length": 18
"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length")\
;created=1618884473;keyid="test-key-ed25519\""""


def test_the_ecdsa_key_of_rfc_9421_signs_the_response_of_b_2_4(live, record_property):
    """A signature has a random part: ours and the printed one are verified by another library."""
    key = load_pem_private_key(KEY_ECC_P256, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    numbers = key.private_numbers()
    values = {
        "d": numbers.private_value,
        "x": numbers.public_numbers.x,
        "y": numbers.public_numbers.y,
    }
    jwk = {name: b64u(value.to_bytes(32)) for name, value in values.items()}
    kid = live.create(kty="EC", crv="P-256", alg="ES256", **jwk)["kid"]
    body = {"alg": "ES256", "data": b64u(SIGNED_RESPONSE)}
    ours = unb64u(live.ok(f"/keys/{kid}/sign", body)["signature"])
    printed = base64.b64decode(
        "wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw=="
    )
    public = load_pem_public_key(live.get(f"/keys/{kid}/public.pem").content)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    for signature in (printed, ours):
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        encoded = utils.encode_dss_signature(r, s)
        public.verify(encoded, SIGNED_RESPONSE.encode(), ec.ECDSA(hashes.SHA256()))
    count(record_property, "RFC 9421", 1)


def test_the_eddsa_key_of_rfc_9421_makes_the_signature_of_b_2_6(live, record_property):
    jwk = {
        "d": "n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU",
        "x": "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs",
    }
    kid = live.create(kty="OKP", crv="Ed25519", alg="Ed25519", **jwk)["kid"]
    body = {"alg": "Ed25519", "data": b64u(SIGNED_REQUEST)}
    signature = unb64u(live.ok(f"/keys/{kid}/sign", body)["signature"])
    assert base64.b64encode(signature).decode() == (
        "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    )
    count(record_property, "RFC 9421", 1)


# --- ML-DSA: RFC 9964. RFC 9864 has names and prints no message ---


@pytest.mark.parametrize("jws", PRINTED["RFC 9964"], ids=list(SEEDED))
def test_a_jws_of_rfc_9964_is_verified_as_printed(live, jws, record_property):
    """Where the token has ML-DSA; the seed of all keys is of zeros, their thumbprint the kid."""
    protected, payload, signature = jws.split(".")
    header = json.loads(unb64u(protected))
    public = SEEDED[header["alg"]].from_seed_bytes(bytes(32)).public_key()
    jwk = {"kty": "AKP", "alg": header["alg"], "pub": b64u(public.public_bytes_raw())}
    assert jwcrypto.jwk.JWK(**jwk).thumbprint() == header["kid"]
    kid = live.create(**jwk, priv=b64u(bytes(32)))["kid"]
    other = f"{protected}.{b64u(unb64u(payload)[:-1])}.{signature}"
    for message, valid in ((jws, True), (other, False)):
        assert live.ok("/verify", {"jws": message, "kid": kid}) == {"kid": kid, "valid": valid}
        assert live.ok("/verify", {"jws": message, "jwk": jwk}) == {"valid": valid}
    count(record_property, "RFC 9964", 1)
