"""A kid beside a message, and one in its header: they have to name one key, by either half."""

import json
from typing import Any

import pytest
from jwcrypto import jwe, jwk

from tests.shared.api import Api, b64u

HALVES = ("kid", "kid_public")
UNKNOWN = "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11"
REFUSAL = {"error": "bad_request", "description": "Field 'kid' is not that of the header"}

either_half = pytest.mark.parametrize("beside", HALVES)


@pytest.fixture(scope="module")
def signer(local: Api) -> Any:
    return local.create(kty="EC", crv="P-256", alg="ES256")


@pytest.fixture(scope="module")
def reader(local: Api) -> Any:
    return local.create(kty="RSA", alg="RSA-OAEP")


def signed(api: Api, key: Any, **members: str) -> dict[str, str]:
    body = {"kid": key["kid"], "alg": "ES256", "data": b64u("data"), **members}
    jws: dict[str, str] = api.ok("/sign", body)
    return jws if "jws" in jws else jws | {"data": b64u("data")}


def sealed_for(api: Api, key: Any, kid: str) -> dict[str, str]:
    """Return a JWE that somebody else made, with ``kid`` in its header."""
    public = api.get(f"/keys/{key['kid']}").body["jwk"]
    header = {"alg": "RSA-OAEP", "enc": "A128GCM", "kid": kid}
    message = jwe.JWE(b"data", json.dumps(header), recipient=jwk.JWK(**public))
    return dict(json.loads(message.serialize()))


@either_half
@pytest.mark.parametrize("serialization", ["flattened", "compact"])
def test_a_signature_is_verified_by_either_half(local, signer, beside, serialization) -> None:
    body = signed(local, signer, serialization=serialization) | {"kid": signer[beside]}
    assert local.ok("/verify", body) == {"kid": signer[beside], "valid": True}


@either_half
@pytest.mark.parametrize("inside", HALVES)
def test_a_message_is_decrypted_and_unwrapped_by_either_half(local, reader, beside, inside) -> None:
    message = sealed_for(local, reader, reader[inside])
    body = message | {"kid": reader[beside]}
    assert local.ok("/decrypt", body) == {"kid": reader[beside], "data": b64u("data")}


@either_half
@pytest.mark.parametrize("path", ["/verify", "/decrypt"])
def test_another_key_is_refused(local, signer, reader, path, beside) -> None:
    other = local.create(kty="EC", crv="P-256", alg="ES256")
    if path == "/verify":
        bodies = [signed(local, signer) | {"kid": other[beside]}]
    else:
        named = (other["kid"], UNKNOWN, "enc-2024", "None", reader["kid"].upper())
        bodies = [sealed_for(local, reader, kid) | {"kid": reader[beside]} for kid in named]
    for body in bodies:
        answer = local.post(path, body)
        assert (answer.status, answer.body) == (400, REFUSAL)


def test_a_key_without_a_second_half_has_no_second_name(local: Api) -> None:
    key = local.create(kty="oct", alg="A128GCM")
    message = jwe.JWE(b"data", json.dumps({"alg": "RSA-OAEP", "enc": "A128GCM", "kid": "None"}))
    message.add_recipient(jwk.JWK.generate(kty="RSA", size=2048))
    body = json.loads(message.serialize()) | {"kid": key["kid"]}
    assert local.post("/decrypt", body).body == REFUSAL


def test_a_kid_beside_that_is_none_is_not_that_of_the_header(local: Api, signer: Any) -> None:
    for kid in (UNKNOWN, "x", ""):
        assert local.post("/verify", signed(local, signer) | {"kid": kid}).body == REFUSAL
