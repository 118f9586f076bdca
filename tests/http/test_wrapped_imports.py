"""Keys that nobody but tokens have seen: wrapped by a peer, imported over HTTP."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey, OKPKey, RSAKey

from app.keys.quota import Quota
from app.keys.wrapped.imports import KeyImports
from app.registry import State
from app.service import service_of
from tests.shared.api import Answer, Api, b64u, unb64u

pytestmark = pytest.mark.usefixtures("softhsm")

UNKNOWN = "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11"
REFUSED = {"error": "crypto_failure", "description": "The wrapped key cannot be imported"}
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


def wrapped_for(wrapping: Mapping[str, Any], octets: bytes, aes: bytes | None = None) -> bytes:
    """Wrap ``octets`` as the documents say, without a line of the service."""
    jwk, aes = wrapping["jwk"], aes or os.urandom(32)
    n, e = (int.from_bytes(unb64u(jwk[name])) for name in ("n", "e"))
    hash_ = {"RSA-OAEP": hashes.SHA1(), "RSA-OAEP-256": hashes.SHA256()}[
        wrapping["alg"]
    ]  # RFC 7518 §4.3
    oaep = padding.OAEP(padding.MGF1(hash_), hash_, None)
    encrypted = rsa.RSAPublicNumbers(e, n).public_key().encrypt(aes, oaep)
    return encrypted + aes_key_wrap_with_padding(aes, octets)


def der(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


@cache
def pair(kind: str) -> Any:
    """A private key, made once."""
    if kind in CURVES:
        return ec.generate_private_key(CURVES[kind])
    return rsa.generate_private_key(65537, int(kind))


def public_of(key: Any) -> dict[str, Any]:
    kind = ECKey if isinstance(key, ec.EllipticCurvePrivateKey) else RSAKey
    jwk = kind.import_key(key.public_key()).as_dict(private=False)
    return {name: value for name, value in jwk.items() if name != "kid"}


def body_of(wrapping: Mapping[str, Any], octets: bytes, **members: Any) -> dict[str, Any]:
    return members | {
        "wrapped": {
            "kid": wrapping["kid"],
            "alg": wrapping["alg"],
            "enc": "CKM_RSA_AES_KEY_WRAP",
            "ciphertext": b64u(octets),
        }
    }


def change(body: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    """Return ``body`` with other members of what is wrapped; ``None`` takes one away."""
    wrapped = {**body["wrapped"], **members}
    return {**body, "wrapped": {name: one for name, one in wrapped.items() if one is not None}}


@pytest.fixture(scope="module")
def wrapping(local: Api) -> Any:
    """A wrapping key of the size that all have, that is only used in vain."""
    return local.ok("/wrapping-keys", {})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have those that tests make themselves, which are good once, made quickly."""
    monkeypatch.setattr("hsm.importing.wrapped_imports._BITS", 1024)


@pytest.fixture(scope="module")
def good(wrapping: Any) -> dict[str, Any]:
    """A request that would succeed."""
    key = pair("P-256")
    return body_of(wrapping, wrapped_for(wrapping, der(key)), **public_of(key), alg="ES256")


def registry(application: Any) -> Any:
    return service_of(application).registry


def kids(application: Any) -> tuple[frozenset[Any], frozenset[Any]]:
    """All rows, and all keys of the token."""
    service = service_of(application)
    return frozenset(service.registry.specs()), frozenset(service.hsm.inventory())


def test_a_wrapping_key_is_described_and_is_no_key_that_anybody_uses(wrapping, local, application):
    kid = wrapping["kid"]
    assert set(wrapping) == {"kid", "alg", "jwk", "expires"}
    assert wrapping["expires"].endswith("Z")  # as all instants of answers
    assert wrapping["alg"] in {"RSA-OAEP", "RSA-OAEP-256"}
    assert wrapping["jwk"] | {"n": "", "e": ""} == {
        "kty": "RSA",
        "n": "",
        "e": "",
        "kid": kid,
        "use": "enc",
        "alg": wrapping["alg"],
    }
    assert len(unb64u(wrapping["jwk"]["n"])) == 384
    for path, body in (
        ("/encrypt", {"kid": kid, "alg": "RSA-OAEP", "enc": "A256GCM", "data": ""}),
        ("/sign", {"kid": kid, "alg": "RS256", "data": ""}),
    ):
        assert local.post(path, body).refusal == (404, "not_found")
    assert local.get(f"/keys/{kid}").refusal == (404, "not_found")
    assert local.delete(kid).refusal == (404, "not_found")
    assert all(key["kid"] != kid for key in local.get("/keys?limit=200").body["keys"])


def test_a_key_is_imported_once_and_nothing_is_left_of_the_wrapping_key(local, application):
    before = kids(application)
    wrapping = local.ok("/wrapping-keys", {})
    key = pair("P-256")
    body = body_of(wrapping, wrapped_for(wrapping, der(key)), **public_of(key), alg="ES256")
    answer = local.ok("/keys", body | {"alias": "wrapped-in"})
    assert answer == {
        "kid": answer["kid"],
        "kid_public": None,
        "kty": "EC",
        "alg": "ES256",
        "crv": "P-256",
        "key_ops": ["sign", "verify"],
        "alias": "wrapped-in",
    }
    described = local.get(f"/keys/{answer['kid']}").body
    assert (described["origin"], described["residency"]) == ("imported_wrapped", "token")
    assert {name: described["jwk"][name] for name in ("kty", "crv", "x", "y")} == public_of(key)
    jws = local.ok("/sign", {"kid": answer["kid"], "alg": "ES256", "data": "AAAA"})
    assert local.ok("/verify", jws | {"data": "AAAA"})["valid"]

    assert local.post("/keys", body).refusal == (404, "not_found")
    assert local.delete(answer["kid"]).status == 204
    assert kids(application) == before


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "RS256": ("2048", {"alg": "RS256"}),
    "RSA": ("2048", {"use": "enc"}),
    "ES512": ("P-521", {"alg": "ES512"}),
    "A256GCM": (bytes(range(32)), {"kty": "oct", "alg": "A256GCM"}),
    "HS256": (bytes(range(40)), {"kty": "oct", "alg": "HS256"}),
}


@pytest.mark.parametrize("name", CASES)
def test_keys_of_each_kind_come_in_and_are_what_they_were(name, local):
    material, members = CASES[name]
    wrapping = local.ok("/wrapping-keys", {})
    octets = material if isinstance(material, bytes) else der(pair(material))
    public = {} if isinstance(material, bytes) else public_of(pair(material))
    kid = local.ok("/keys", body_of(wrapping, wrapped_for(wrapping, octets), **public, **members))[
        "kid"
    ]
    described = local.get(f"/keys/{kid}").body
    jwk = described.get("jwk", {})
    assert {name: jwk[name] for name in public} == public
    assert described["size"] == (
        8 * len(octets) if isinstance(material, bytes) else pair(material).key_size
    )
    assert local.delete(kid).status == 204


def test_a_file_of_azures_tools_is_taken_as_it_is(local):
    wrapping = local.ok("/wrapping-keys", {})
    byok = {
        "schema_version": "1.0.0",
        "header": {"kid": wrapping["kid"], "alg": "dir", "enc": "CKM_RSA_AES_KEY_WRAP"},
        "ciphertext": b64u(wrapped_for(wrapping, der(pair("P-384")))),
        "generator": "somebody's tool",
    }
    made = local.ok("/keys", public_of(pair("P-384")) | {"wrapped": byok})
    assert local.delete(made["kid"]).status == 204


def test_a_repetition_with_the_same_idempotency_key_gets_the_first_answer(local):
    wrapping = local.ok("/wrapping-keys", {})
    key = pair("P-256")
    body = body_of(wrapping, wrapped_for(wrapping, der(key)), **public_of(key), alg="ES256")
    named = {"headers": {"Idempotency-Key": wrapping["kid"]}}
    first, second = (local.post("/keys", body, **named) for _ in range(2))
    assert (first.status, second.body) == (200, first.body)
    assert local.delete(first.body["kid"]).status == 204


def _ciphertext(body: Mapping[str, Any]) -> bytes:
    return unb64u(body["wrapped"]["ciphertext"])


def _flipped(octets: bytes, index: int) -> str:
    changed = bytearray(octets)
    changed[index] ^= 1
    return b64u(bytes(changed))


CORRUPTED: dict[str, Any] = {
    "a bad padding": lambda body, _: _flipped(_ciphertext(body), 100),
    "a changed key": lambda body, _: _flipped(_ciphertext(body), -1),
    "a key that is cut": lambda body, _: b64u(_ciphertext(body)[:-8]),
    "an AES key alone": lambda body, _: b64u(_ciphertext(body)[:384]),
    "a byte": lambda *_: "AA",
    "nothing": lambda *_: "",
    "another key": lambda _, w: b64u(wrapped_for(w, der(ec.generate_private_key(CURVES["P-256"])))),
    "a key on another curve": lambda _, w: b64u(wrapped_for(w, der(pair("P-384")))),
    "a key of another type": lambda _, w: b64u(wrapped_for(w, der(pair("2048")))),
    "no key": lambda _, w: b64u(wrapped_for(w, b"no key")),
}


def test_whatever_is_wrong_with_a_wrapped_key_is_one_answer_and_leaves_nothing(
    good, wrapping, local, application
):
    before = kids(application)
    answers = [
        local.post("/keys", change(good, ciphertext=corrupt(good, wrapping)))
        for corrupt in CORRUPTED.values()
    ]
    assert {answer.status for answer in answers} == {422}
    assert {answer.content for answer in answers} == {answers[0].content}
    assert answers[0].body == REFUSED
    assert kids(application) == before


@pytest.mark.parametrize(
    ("alg", "size_bytes"),
    [("A256GCM", 16), ("A128GCM", 32), ("HS256", 24), ("HS512", 32), ("HS256", 4097)],
)
def test_so_is_a_secret_key_of_a_wrong_size(alg, size_bytes, wrapping, local):
    octets = wrapped_for(wrapping, bytes(size_bytes))
    answer = local.post("/keys", body_of(wrapping, octets, kty="oct", alg=alg))
    assert (answer.status, answer.body) == (422, REFUSED)


ED25519 = OKPKey.generate_key("Ed25519").as_dict(private=False)
BAD = (400, "bad_request")
REFUSALS: dict[str, tuple[Any, tuple[int, str], str]] = {
    "wrapped that is no object": (lambda b: b | {"wrapped": "x"}, BAD, "must be an object"),
    "no kid": (lambda b: change(b, kid=None), BAD, "Field 'kid' is required"),
    "no alg": (lambda b: change(b, alg=None), BAD, "Field 'alg' is required"),
    "no enc": (lambda b: change(b, enc=None), BAD, "Field 'enc' is required"),
    "no ciphertext": (lambda b: change(b, ciphertext=None), BAD, "Field 'ciphertext' is required"),
    "another enc": (lambda b: change(b, enc="A256GCM"), BAD, "CKM_RSA_AES_KEY_WRAP"),
    "no base64url": (lambda b: change(b, ciphertext="="), BAD, "not valid base64url"),
    "another alg": (lambda b: change(b, alg="RSA1_5"), (422, "crypto_failure"), "is for RSA-OAEP"),
    "a wrapping key that is not there": (
        lambda b: change(b, kid=UNKNOWN),
        (404, "not_found"),
        "Key not found",
    ),
    "an odd kid": (lambda b: change(b, kid="../x"), (404, "not_found"), "Key not found"),
    "d beside it": (lambda b: b | {"d": "AAAA"}, BAD, "'d' does not go with 'wrapped'"),
    "no public half": (lambda b: b | {"x": None}, BAD, "Field 'x' is required"),
    "a point off the curve": (lambda b: b | {"x": b["y"]}, BAD, "not a point of the curve"),
    "an alg of another curve": (lambda b: b | {"alg": "ES384"}, BAD, "Field 'crv'"),
    "a use that is another": (lambda b: b | {"use": "enc"}, BAD, "Field 'use' contradicts"),
    "a byok of another version": (
        lambda b: b | {"wrapped": {"schema_version": "2", "header": {}, "ciphertext": ""}},
        BAD,
        "schema_version",
    ),
    "a byok without a kid": (
        lambda b: b | {"wrapped": {"schema_version": "1.0.0", "header": {}, "ciphertext": ""}},
        BAD,
        "Field 'kid' is required",
    ),
    "a byok whose header is no object": (
        lambda b: b | {"wrapped": {"schema_version": "1.0.0", "header": "", "ciphertext": ""}},
        BAD,
        "'header' must be an object",
    ),
    "Ed25519": (
        lambda b: ED25519 | {"wrapped": b["wrapped"]},
        (422, "unsupported_algorithm"),
        "the token does not unwrap such keys",
    ),
    "a key of two objects": (
        lambda b: {"kty": "oct", "alg": "A128CBC-HS256", "wrapped": b["wrapped"]},
        (422, "unsupported_algorithm"),
        "wrapped import",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_can_be_said_of_a_request_is_said(name, good, local):
    spoil, refusal, text = REFUSALS[name]
    answer: Answer = local.post("/keys", spoil(good))
    assert answer.refusal == refusal
    assert text in answer.body["description"]


def test_a_wrapping_key_is_for_whoever_had_it_made(callers):
    wrapping = callers.alice.ok("/wrapping-keys", {})
    octets = wrapped_for(wrapping, bytes(32))
    body = body_of(wrapping, octets, kty="oct", alg="HS256")
    assert callers.bob.post("/keys", body).refusal == (403, "forbidden")
    made = callers.alice.ok("/keys", body)
    assert callers.alice.delete(made["kid"]).status == 204


def test_a_wrapping_key_counts_as_a_key_and_an_import_frees_its_place(
    local, application, monkeypatch
):
    owned = registry(application).census.owned_by("anonymous", at_most=1_000_000)
    monkeypatch.setattr(Quota, "most", owned + 1)
    wrapping = local.ok("/wrapping-keys", {})
    assert local.post("/wrapping-keys", {}).refusal == (422, "too_many_keys")
    body = body_of(wrapping, wrapped_for(wrapping, bytes(32)), kty="oct", alg="HS256")
    made = local.ok("/keys", body)
    assert local.post("/wrapping-keys", {}).refusal == (422, "too_many_keys")
    assert local.delete(made["kid"]).status == 204


@pytest.mark.parametrize("storage", ["token", "wrapped"])
def test_a_wrapping_key_that_another_token_holds_is_not_called_unknown(storage, local, application):
    wrapping = local.ok("/wrapping-keys", {})
    body = body_of(wrapping, wrapped_for(wrapping, bytes(32)), kty="oct", alg="HS256")
    kid, service = UUID(wrapping["kid"]), service_of(application)
    key = service.registry.whole(kid, [State.WRAPPING])
    assert key is not None
    service.hsm.destroy(key.ref)
    before = kids(application)
    assert local.post("/keys", body | {"storage": storage}).refusal == (503, "unavailable")
    assert kids(application) == before
    service.registry.remove(kid)
    assert local.post("/keys", body | {"storage": storage}).refusal == (404, "not_found")


def test_where_keys_come_in_wrapped_only_no_other_is_imported(local, monkeypatch):
    monkeypatch.setattr(KeyImports, "takes_plain", False)
    secret = {"kty": "oct", "alg": "HS256", "k": b64u(bytes(32))}
    plain = {"kty": "EC", "crv": "P-256", "d": b64u(bytes(31) + b"\x07")}
    for body in (secret, plain):
        assert local.post("/keys", body).refusal == (422, "crypto_failure")
    assert local.delete(local.create(kty="oct", alg="HS256")["kid"]).status == 204
    wrapping = local.ok("/wrapping-keys", {})
    octets = wrapped_for(wrapping, bytes(32))
    made = local.ok("/keys", body_of(wrapping, octets, kty="oct", alg="HS256"))
    assert local.delete(made["kid"]).status == 204


def test_what_was_refused_is_good_once_it_is_right(good, local):
    """A wrapping key is not used up by what it does not import."""
    assert local.post("/keys", change(good, ciphertext="AAAA")).status == 422
    made = local.ok("/keys", good)
    assert local.delete(made["kid"]).status == 204
