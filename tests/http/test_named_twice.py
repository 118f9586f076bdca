"""A kid beside a message decides; one in its header may be somebody else's, but not another key."""

import json
from typing import Any

import pytest
from jwcrypto import jwe, jwk

from app.service import service_of
from tests.shared.api import Api, b64u, header
from tests.shared.reads import reads_of

HALVES = ("kid", "kid_public")
UNKNOWN = "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11"
NOT_FOUND = (404, "not_found")
REFUSAL = {"error": "bad_request", "description": "Field 'kid' is not that of the header"}

either_half = pytest.mark.parametrize("beside", HALVES)


@pytest.fixture(scope="module")
def signer(local: Api) -> Any:
    return local.shared(kty="EC", crv="P-256", alg="ES256")


@pytest.fixture(scope="module")
def reader(local: Api) -> Any:
    return local.shared(kty="RSA", alg="RSA-OAEP")


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
@pytest.mark.parametrize("path", ["/verify", "/decrypt", "/keys/unwrap"])
def test_another_key_is_refused(local, signer, reader, path, beside) -> None:
    other = local.create(kty="EC", crv="P-256", alg="ES256")
    if path == "/verify":
        bodies = [signed(local, signer) | {"kid": other[beside]}]
    else:
        named = (other["kid"], other["kid_public"], signer["kid"])
        bodies = [sealed_for(local, reader, kid) | {"kid": reader[beside]} for kid in named]
    for body in bodies:
        answer = local.post(path, body)
        assert (answer.status, answer.body) == (400, REFUSAL)


FOREIGN = (UNKNOWN, UNKNOWN.upper(), "enc-2024", "None", "", "frodo.baggins@hobbiton.example", "\0")


@either_half
@pytest.mark.parametrize("kid", FOREIGN)
def test_the_name_of_somebody_else_is_ignored(local, signer, reader, kid, beside) -> None:
    message = sealed_for(local, reader, kid) | {"kid": reader[beside]}
    assert local.ok("/decrypt", message) == {"kid": reader[beside], "data": b64u("data")}
    assert local.ok("/keys/unwrap", message)["alg"] == "A128GCM"
    jws = signed(local, signer) | {"protected": header(alg="ES256", kid=kid)}
    answer = local.ok("/verify", jws | {"kid": signer[beside]})
    assert answer == {"kid": signer[beside], "valid": False}


def test_a_key_of_somebody_else_is_a_name_of_somebody_else(callers) -> None:
    theirs = callers.bob.create(kty="EC", crv="P-256", alg="ES256")
    mine = callers.alice.shared(kty="RSA", alg="RSA-OAEP")
    message = sealed_for(callers.alice, mine, theirs["kid"]) | {"kid": mine["kid"]}
    assert callers.alice.ok("/decrypt", message)["kid"] == mine["kid"]
    for right in ("sign", "read"):  # whatever it is, the key is known then
        path = f"/keys/{theirs['kid']}/grants/token:alice"
        assert callers.bob.request("PUT", path, json={"operations": [right]}).status == 200
        assert callers.alice.post("/decrypt", message).body == REFUSAL
        assert callers.bob.request("DELETE", path).status == 204
    assert callers.alice.ok("/decrypt", message)["kid"] == mine["kid"]


def test_the_kid_beside_is_looked_for_before_that_of_the_header(callers, signer, local) -> None:
    mine = callers.alice.shared(kty="RSA", alg="RSA-OAEP")
    theirs = callers.bob.create(kty="EC", crv="P-256", alg="ES256")
    message = sealed_for(callers.alice, mine, mine["kid"])
    for path in ("/decrypt", "/keys/unwrap"):
        for kid in (UNKNOWN, "x", ""):
            assert callers.alice.post(path, message | {"kid": kid}).refusal == NOT_FOUND
        assert callers.alice.post(path, message | {"kid": theirs["kid"]}).status == 403
    for kid in (UNKNOWN, "x", ""):
        jws = signed(local, signer) | {"kid": kid}
        assert local.post("/verify", jws).refusal == NOT_FOUND


def test_in_a_batch_it_decides_too(local, signer, reader) -> None:
    bodies = [
        sealed_for(local, reader, "enc-2024") | {"kid": reader["kid"]},
        sealed_for(local, reader, signer["kid"]) | {"kid": reader["kid"]},
        sealed_for(local, reader, reader["kid"]) | {"kid": UNKNOWN},
    ]
    answers = local.ok("/batch", {"requests": [{"op": "decrypt", "body": one} for one in bodies]})
    assert [answer["status"] for answer in answers["responses"]] == [200, 400, 404]
    assert answers["responses"][1]["body"] == REFUSAL


def test_two_names_are_read_at_once(application, local, signer, reader) -> None:
    message = sealed_for(local, reader, signer["kid"]) | {"kid": reader["kid"]}
    with reads_of(service_of(application).registry) as reads:
        assert local.post("/decrypt", message).body == REFUSAL
    assert len(reads) == 1
