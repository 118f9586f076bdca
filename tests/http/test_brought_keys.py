"""JWEs for public keys that callers bring along, and more members in headers of JWEs."""

import itertools
import json
from typing import Any

import jwcrypto.jwe
import jwcrypto.jwk
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwe, jwk

import hsm
from app.schemas.public_jwk import AGREEMENT_CRVS
from tests.http.test_interoperation import UNKNOWN_TO_PEERS
from tests.shared.api import Api, b64u, unb64u
from tests.shared.bodies import RSA_TRANSPORTS
from tests.shared.injector import NAMES, Injector

BAD_REQUEST = (400, "bad_request")
CRYPTO_FAILURE = (422, "crypto_failure")
UNSUPPORTED = (422, "unsupported_algorithm")
MESSAGE = b"It\xe2\x80\x99s a dangerous business, Frodo"
RECIPIENTS = [
    *((alg, "RSA", None) for alg in RSA_TRANSPORTS if alg not in UNKNOWN_TO_PEERS),
    *(
        (alg, kty, crv)
        for alg in hsm.KEY_AGREEMENTS
        for kty, crvs in AGREEMENT_CRVS.items()
        for crv in crvs
    ),
]
every_recipient = pytest.mark.parametrize(("alg", "kty", "crv"), RECIPIENTS)
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")


@pytest.fixture(scope="module")
def keys() -> dict[tuple[str, str | None], jwcrypto.jwk.JWK]:
    """A private key of somebody else's of each kind."""
    kinds = dict.fromkeys((kty, crv) for _, kty, crv in RECIPIENTS)
    return {
        (kty, crv): jwcrypto.jwk.JWK.generate(kty=kty, **({"crv": crv} if crv else {"size": 2048}))
        for kty, crv in kinds
    }


def public(key: jwcrypto.jwk.JWK, **members: Any) -> dict[str, Any]:
    return {**key.export_public(as_dict=True), **members}


def encrypt(api: Api, key: dict[str, Any], alg: str, enc: str, **members: Any) -> Any:
    body = {"jwk": key, "alg": alg, "enc": enc, "data": b64u(MESSAGE), **members}
    return api.ok("/encrypt", body)


def opened(key: jwcrypto.jwk.JWK, message: Any) -> tuple[bytes, dict[str, Any]]:
    """Return what jwcrypto makes of a JWE, and its protected header."""
    reader = jwcrypto.jwe.JWE(algs=[*hsm.KEY_MANAGEMENTS, *hsm.CONTENT_ENCRYPTIONS])
    reader.deserialize(message.get("jwe") or json.dumps(message), key)
    return reader.payload, json.loads(reader.objects["protected"])


@every_recipient
def test_the_other_side_opens_it_whatever_the_enc_and_form(local, keys, alg, kty, crv) -> None:
    key = keys[kty, crv]
    for enc, form in itertools.product(hsm.CONTENT_ENCRYPTIONS, ("flattened", "compact")):
        message = encrypt(local, public(key), alg, enc, serialization=form)
        data, header = opened(key, message)
        assert data == MESSAGE
        assert list(header)[:2] == ["alg", "enc"]
        assert (header["alg"], header["enc"]) == (alg, enc)
        assert ("epk" in header) is (alg in hsm.KEY_AGREEMENTS)


@every_recipient
def test_another_library_opens_it_too(local, keys, alg, kty, crv) -> None:
    key = jwk.import_key(keys[kty, crv].export(as_dict=True))
    message = encrypt(local, public(keys[kty, crv]), alg, "A256GCM", serialization="compact")
    found = jwe.decrypt_compact(message["jwe"], key, algorithms=[alg, "A256GCM"])
    assert found.plaintext == MESSAGE


@pytest.mark.parametrize("alg", sorted(UNKNOWN_TO_PEERS))
def test_the_cek_is_encrypted_with_the_hash_of_the_alg(local, alg) -> None:
    key = rsa.generate_private_key(65537, 2048)
    body = jwcrypto.jwk.JWK.from_pyca(key.public_key()).export_public(as_dict=True)
    message = encrypt(local, body, alg, "A256GCM")
    digest = getattr(hashes, f"SHA{alg[-3:]}")()
    oaep = padding.OAEP(padding.MGF1(digest), digest, None)
    cek = key.decrypt(unb64u(message["encrypted_key"]), oaep)
    sealed = unb64u(message["ciphertext"]) + unb64u(message["tag"])
    aad = message["protected"].encode()
    assert AESGCM(cek).decrypt(unb64u(message["iv"]), sealed, aad) == MESSAGE


def test_the_header_has_the_kid_of_the_jwk_and_what_both_sides_agree_with(local, keys) -> None:
    key = keys["EC", "P-256"]
    members = {"apu": b64u("Alice"), "apv": b64u("Bob"), "aad": b64u("a"), "header": {"x": 1}}
    message = encrypt(
        local, public(key, kid="theirs"), "ECDH-ES+A128KW", "A128GCM", typ="JOSE", **members
    )
    assert list(message) == ["protected", "encrypted_key", "iv", "ciphertext", "tag", "aad"]
    data, header = opened(key, message)
    assert data == MESSAGE
    assert list(header) == ["alg", "enc", "kid", "epk", "apu", "apv", "typ", "x"]
    assert header["kid"] == "theirs"
    without = encrypt(local, public(key), "ECDH-ES", "A128GCM")
    assert "kid" not in opened(key, without)[1]


def test_a_pair_of_the_service_can_be_brought_along_as_well(local) -> None:
    pair = local.create(kty="OKP", crv="X25519", alg="ECDH-ES")
    jwk_of_pair = local.get(f"/keys/{pair['kid']}").body["jwk"]
    message = encrypt(local, jwk_of_pair, "ECDH-ES", "A256GCM")
    assert local.ok("/decrypt", message)["data"] == b64u(MESSAGE)


def test_nothing_is_asked_of_the_token(local, keys, chaos: Injector) -> None:
    asked = chaos.count_own(*NAMES)
    encrypt(local, public(keys["RSA", None]), "RSA-OAEP-256", "A256GCM")
    encrypt(local, public(keys["EC", "P-256"]), "ECDH-ES", "A128CBC-HS256")
    assert not any(asked.values())


def test_a_batch_encrypts_to_both_kinds_of_recipients(local, keys) -> None:
    key = keys["RSA", None]
    pair = local.shared(kty="RSA", alg="RSA-OAEP")
    body = {"alg": "RSA-OAEP", "enc": "A128GCM", "data": b64u(MESSAGE), "header": {"x": 1}}
    bodies = [
        body | {"jwk": public(key)},
        body | {"kid": pair["kid"]},
        body | {"jwk": public(key), "kid": pair["kid"]},
    ]
    requests = [{"op": "encrypt", "body": one} for one in bodies]
    theirs, ours, refused = local.ok("/batch", {"requests": requests})["responses"]
    assert opened(key, theirs["body"])[0] == MESSAGE
    assert local.ok("/decrypt", ours["body"])["data"] == b64u(MESSAGE)
    assert refused["status"] == 400


# --- More members ---


def test_members_come_last_in_the_header_and_are_authenticated(local) -> None:
    pair = local.shared(kty="RSA", alg="RSA-OAEP-256")
    body = {"kid": pair["kid"], "alg": "RSA-OAEP-256", "enc": "A256GCM", "data": b64u(MESSAGE)}
    message = local.ok("/encrypt", body | {"typ": "JWT", "header": {"z": [1], "jwk": True}})
    header = json.loads(unb64u(message["protected"]))
    assert list(header) == ["alg", "enc", "kid", "typ", "z", "jwk"]
    jwk_of_pair = local.get(f"/keys/{pair['kid']}").body["jwk"]
    assert header["jwk"] == {name: jwk_of_pair[name] for name in ("kty", "n", "e")}
    assert local.ok("/decrypt", message)["data"] == b64u(MESSAGE)
    other = b64u(json.dumps(header | {"z": [2]}, separators=(",", ":")))
    refused = local.post("/decrypt", message | {"protected": other})
    assert refused.refusal == (422, "decryption_failed")


def test_a_secret_key_has_members_too_but_no_public_half(local) -> None:
    kid = local.create(kty="oct", alg="A256GCM")["kid"]
    body = {"kid": kid, "alg": "dir", "enc": "A256GCM", "data": b64u(MESSAGE)}
    message = local.ok("/encrypt", body | {"header": {"iss": "me"}})
    expected = f'{{"alg":"dir","enc":"A256GCM","kid":"{kid}","iss":"me"}}'
    assert unb64u(message["protected"]).decode() == expected
    assert local.ok("/decrypt", message)["data"] == b64u(MESSAGE)
    refused = local.post("/encrypt", body | {"header": {"jwk": True}})
    assert refused.refusal == CRYPTO_FAILURE
    assert refused.body["description"] == "The key has no public half"


# --- Refusals ---

WRONG_KEYS = {
    "a private one": ({"d": "AAAA"}, BAD_REQUEST, "private member 'd'"),
    "a secret one": ({"kty": "oct"}, BAD_REQUEST, "'kty' must be one of"),
    "for signatures": ({"use": "sig"}, CRYPTO_FAILURE, "does not permit"),
    "for other operations": ({"key_ops": ["verify"]}, CRYPTO_FAILURE, "does not permit"),
    "for what is no operation": ({"key_ops": [{}]}, BAD_REQUEST, "'key_ops' must be an array"),
    "for another algorithm": ({"alg": "ECDH-ES+A256KW"}, CRYPTO_FAILURE, "does not permit"),
    "on no curve": ({"crv": None}, BAD_REQUEST, "'crv' is required"),
    "on another curve": ({"crv": "P-384"}, BAD_REQUEST, "'x' must be exactly"),
    "on an unknown curve": ({"crv": "P-224"}, BAD_REQUEST, "'crv' must be one of"),
    "without a coordinate": ({"y": None}, BAD_REQUEST, "'y' is required"),
    "off its curve": ({"x": b64u(bytes(32))}, BAD_REQUEST, "not a point of the curve"),
    "in bad base64url": ({"x": "AA="}, BAD_REQUEST, "not valid base64url"),
}


@pytest.mark.parametrize(("members", "answer", "text"), WRONG_KEYS.values(), ids=WRONG_KEYS)
def test_a_wrong_key_is_refused(local, keys, members, answer, text) -> None:
    key = public(keys["EC", "P-256"], **members)
    body = {"jwk": key, "alg": "ECDH-ES", "enc": "A128GCM", "data": ""}
    refused = local.post("/encrypt", body)
    assert (refused.refusal, text in refused.body["description"]) == (answer, True)


UNFIT = [
    ("dir", "EC", "P-256"),
    ("A128KW", "EC", "P-256"),
    ("RSA-OAEP", "EC", "P-256"),
    ("ECDH-ES", "RSA", None),
]


@pytest.mark.parametrize(("alg", "kty", "crv"), UNFIT)
def test_a_key_of_another_kind_is_refused(local, keys, alg, kty, crv) -> None:
    body = {"jwk": public(keys[kty, crv]), "alg": alg, "enc": "A128GCM", "data": ""}
    assert local.post("/encrypt", body).refusal == CRYPTO_FAILURE


@pytest.mark.parametrize("x", [bytes(32), b"\1" + bytes(31)])
def test_a_point_of_small_order_is_refused(local, x) -> None:
    key = {"kty": "OKP", "crv": "X25519", "x": b64u(x)}
    body = {"jwk": key, "alg": "ECDH-ES", "enc": "A128GCM", "data": ""}
    assert local.post("/encrypt", body).refusal == BAD_REQUEST


def test_a_signing_curve_is_refused(local) -> None:
    key = jwcrypto.jwk.JWK.generate(kty="OKP", crv="Ed25519").export_public(as_dict=True)
    body = {"jwk": key, "alg": "ECDH-ES", "enc": "A128GCM", "data": ""}
    refused = local.post("/encrypt", body)
    assert refused.refusal == BAD_REQUEST
    assert "'crv' must be one of" in refused.body["description"]


@pytest.mark.parametrize("jwk_member", [1, "{}", [], True])
def test_what_is_no_object_is_refused(local, jwk_member) -> None:
    body = {"jwk": jwk_member, "alg": "ECDH-ES", "enc": "A128GCM", "data": ""}
    assert local.post("/encrypt", body).refusal == BAD_REQUEST


def test_there_is_one_recipient(local, keys) -> None:
    body = {"alg": "ECDH-ES", "enc": "A128GCM", "data": ""}
    both = body | {"jwk": public(keys["EC", "P-256"]), "kid": "x"}
    assert local.post("/encrypt", both).body["description"] == "Field 'jwk' does not go with 'kid'"
    neither = local.post("/encrypt", body | {"jwk": None})
    assert neither.body["description"] == "Field 'kid' is required"
