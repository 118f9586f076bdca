"""A JWS whose signature is a MAC, made in one call."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
from joserfc import jwk, jws, jwt

from tests.shared.api import Api, b64u, unb64u
from tests.shared.reads import unasked

BAD_REQUEST = (400, "bad_request")
CLAIMS = b64u('{"sub":"alice"}')
COMPACT = {"serialization": "compact"}


@pytest.fixture(scope="module")
def secret() -> jwk.OctKey:
    return jwk.OctKey.generate_key(512)


def imported(api: Api, secret: jwk.OctKey, alg: str = "HS256", **members: Any) -> str:
    kid: str = api.create(**secret.as_dict(private=True), **members | {"alg": alg})["kid"]
    return kid


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_a_jwt_of_ours_is_one_for_joserfc_and_for_us(live, secret, alg):
    kid = imported(live, secret, alg)
    body = {"kid": kid, "alg": alg, "data": CLAIMS, "typ": "JWT", **COMPACT}
    made = live.ok("/mac", body)
    assert set(made) == {"jws"}
    head = unb64u(made["jws"].partition(".")[0])
    assert head == f'{{"alg":"{alg}","kid":"{kid}","typ":"JWT"}}'.encode()
    assert jwt.decode(made["jws"], secret, algorithms=[alg]).claims == {"sub": "alice"}
    assert live.ok("/verify", made) == {"kid": kid, "valid": True}
    names = {"alg": alg, "kid": kid, "typ": "JWT"}
    theirs = jws.serialize_compact(names, unb64u(CLAIMS), secret, algorithms=[alg])
    assert live.ok("/verify", {"jws": theirs})["valid"] is True


def test_a_caller_adds_to_the_header(live, secret):
    alias = f"key:{uuid4().hex}"
    imported(live, secret, alias=alias)
    body = {"kid": alias, "alg": "HS256", "data": CLAIMS, **COMPACT}
    made = live.ok("/mac", body | {"header": {"cty": "x", "iss": "alice"}, "typ": "JWT"})
    head = json.loads(unb64u(made["jws"].partition(".")[0]))
    assert list(head.items()) == [
        *(("alg", "HS256"), ("kid", alias), ("typ", "JWT"), ("cty", "x"), ("iss", "alice"))
    ]
    assert live.ok("/verify", made) == {"kid": alias, "valid": True}
    nameless = live.ok("/mac", body | {"header": {"kid": None}})
    assert json.loads(unb64u(nameless["jws"].partition(".")[0])) == {"alg": "HS256"}
    assert live.ok("/verify", nameless | {"kid": alias})["valid"] is True


def test_a_payload_that_is_not_encoded_is_detached(live, secret):
    kid = imported(live, secret)
    header = {"b64": False, "crit": ["b64"]}
    body = {"kid": kid, "alg": "HS256", "data": CLAIMS, "header": header, **COMPACT}
    made = live.ok("/mac", body)
    assert ".." in made["jws"]
    assert live.ok("/verify", made | {"data": CLAIMS}) == {"kid": kid, "valid": True}
    assert live.ok("/verify", made | {"data": b64u("x")})["valid"] is False


def test_without_a_serialization_it_is_a_mac_as_ever(live, secret):
    kid = imported(live, secret)
    body = {"kid": kid, "alg": "HS256", "data": CLAIMS}
    ignored: dict[str, Any] = {"serialization": None, "typ": 5, "header": "x"}
    assert live.ok("/mac", body | ignored) == live.ok("/mac", body)


def test_it_takes_the_right_to_mac_and_an_active_key(callers, secret):
    kid = imported(callers.alice, secret)
    body = {"kid": kid, "alg": "HS256", "data": CLAIMS, **COMPACT}
    assert callers.bob.post("/mac", body).refusal == (403, "forbidden")
    callers.alice.request("PUT", f"/keys/{kid}/grants/token:bob", json={"operations": ["mac"]})
    assert callers.bob.post("/mac", body).status == 200
    callers.alice.request("PATCH", f"/keys/{kid}", json={"state": "deactivated"})
    assert callers.bob.post("/mac", body).refusal == (422, "crypto_failure")


REFUSALS: Mapping[str, tuple[dict[str, Any], tuple[int, str]]] = {
    "another serialization": ({"serialization": "flattened"}, BAD_REQUEST),
    "a serialization that is no text": ({"serialization": 5}, BAD_REQUEST),
    "a MAC to compare with": ({"mac": "AAAA"}, BAD_REQUEST),
    "data that is no base64url": ({"data": "A="}, BAD_REQUEST),
    "typ that is no text": ({"typ": 5}, BAD_REQUEST),
    "typ twice": ({"typ": "JWT", "header": {"typ": "JWT"}}, BAD_REQUEST),
    "a header that is no object": ({"header": "x"}, BAD_REQUEST),
    "alg in the header": ({"header": {"alg": "HS256"}}, BAD_REQUEST),
    "unknown crit": ({"header": {"crit": ["x"], "x": 1}}, BAD_REQUEST),
    "b64 without crit": ({"header": {"b64": False}}, BAD_REQUEST),
    "zip": ({"header": {"zip": "DEF"}}, BAD_REQUEST),
    "a header of more than 8 KiB": ({"header": {"x": 8192 * "x"}}, BAD_REQUEST),
    "alg of a signature": ({"alg": "ES256"}, (422, "unsupported_algorithm")),
    "alg none": ({"alg": "none"}, (422, "unsupported_algorithm")),
}


@pytest.mark.parametrize(("change", "refusal"), REFUSALS.values(), ids=REFUSALS)
def test_a_malformed_request_is_refused_before_anything_is_asked(
    local, application, chaos, change, refusal
):
    body = {"kid": str(uuid4()), "alg": "HS256", "data": CLAIMS, **COMPACT}
    with unasked(application, chaos):
        assert local.post("/mac", body | change).refusal == refusal


@pytest.mark.parametrize(
    "header", [{"kid": "x"}, {"kid": str(uuid4())}, {"jwk": True}, {"jwk": {}}]
)
def test_a_header_that_names_another_key_is_refused(local, chaos, secret, header):
    kid = imported(local, secret)
    body = {"kid": kid, "alg": "HS256", "data": CLAIMS, "header": header, **COMPACT}
    calls = chaos.count_own("C_SignInit", "C_Sign")
    assert local.post("/mac", body).refusal == (422, "crypto_failure")
    assert not calls
