"""Key sets over HTTP: made, used by name, rotated, revoked, destroyed; by whom."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest

from app.config import Config
from scripts.throwaway import ROOT
from tests.shared.api import Api, unb64u
from tests.shared.callers import Callers
from tests.shared.waiting import until

NOT_FOUND, FORBIDDEN, REFUSED = (404, "not_found"), (403, "forbidden"), (422, "crypto_failure")
BAD_REQUEST, CONFLICT = (400, "bad_request"), (409, "conflict")
EC = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
WRAPPING = {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A128KW"}
AES = {"kty": "oct", "alg": "A128GCM"}
KID = "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11"
WRAPPED = {"kid": KID, "alg": "RSA-OAEP", "enc": "CKM_RSA_AES_KEY_WRAP", "ciphertext": "AAAA"}
HMAC = {"kty": "oct", "alg": "HS256"}
ROTATION = {"every": "P30D", "publish_ahead": "P1D", "retain": "P7D"}
DATA = {"data": "AAAA"}


def put(api: Api, name: str, /, **members: Any) -> Any:
    return api.request("PUT", f"/keysets/{name}", json=members)


def made(api: Api, rotation: Any = ROTATION, **members: Any) -> dict[str, Any]:
    """Make a key set of a new name."""
    answer = put(api, f"set-{uuid4().hex}", rotation=rotation, **members)
    assert answer.status == 200, answer
    return dict(answer.body)


def read(api: Api, keyset: Mapping[str, Any]) -> dict[str, Any]:
    answer = api.get(f"/keysets/{keyset['name']}")
    assert answer.status == 200, answer
    return dict(answer.body)


def rotated(api: Api, keyset: Mapping[str, Any]) -> dict[str, Any]:
    """Have the current version make room for another one, now."""
    api.ok(f"/keysets/{keyset['name']}/revoke", {"kid": keyset["current"]})
    until(lambda: read(api, keyset)["current"] != keyset["current"])
    return read(api, keyset)


def kid_of(message: Mapping[str, Any]) -> str:
    """Return the kid that a protected header names."""
    return str(json.loads(unb64u(message["protected"]))["kid"])


def public_kid(api: Api, kid: str) -> str:
    return str(api.get(f"/keys/{kid}").body["kid_public"])


def published(api: Api) -> set[str]:
    keys = api.get("/.well-known/jwks.json", params={"owner": "token:alice"}).body["keys"]
    return {jwk["kid"] for jwk in keys}


def test_a_key_set_is_made_with_its_first_version(callers_of_each):
    alice = callers_of_each.alice
    keyset = made(alice, **EC, tags=["red"])
    assert read(alice, keyset) == keyset
    [first] = keyset["versions"]
    assert (first["state"], first["version"], first["kid"]) == ("current", 1, keyset["current"])
    assert keyset["rotation"] == ROTATION
    assert (keyset["tags"], keyset["owner"], keyset["published"]) == (
        ["red"],
        "token:alice",
        True,
    )
    assert public_kid(alice, keyset["current"]) in published(alice)
    key = alice.get(f"/keys/{keyset['current']}").body
    assert (key["state"], key["tags"]) == ("active", ["jwks", "red"])


def test_a_jws_by_the_name_of_a_set_names_the_version_and_verifies_ever_after(callers_of_each):
    alice = callers_of_each.alice
    keyset = made(alice, **EC)
    sign = {"keyset": keyset["name"], "alg": "ES256"} | DATA
    first = alice.ok("/sign", sign)
    assert kid_of(first) == public_kid(alice, keyset["current"])
    after = rotated(alice, keyset)
    second = alice.ok("/sign", sign)
    assert kid_of(second) == public_kid(alice, after["current"])
    assert after["current"] != keyset["current"]
    for jws in (first, second):
        assert alice.ok("/verify", jws | DATA)["valid"] is True
    assert kid_of(first) not in published(alice)
    assert kid_of(second) in published(alice)


def test_a_jwe_by_the_name_of_a_set_opens_ever_after(callers_of_each):
    alice = callers_of_each.alice
    for members, names in (
        (AES, {"alg": "dir", "enc": "A128GCM"}),
        (WRAPPING, {"alg": "ECDH-ES+A128KW", "enc": "A128GCM"}),
    ):
        keyset = made(alice, **members)
        encrypt = {"keyset": keyset["name"]} | names | DATA
        first = alice.ok("/encrypt", encrypt)
        assert kid_of(first) == keyset["current"]
        after = rotated(alice, keyset)
        second = alice.ok("/encrypt", encrypt)
        assert kid_of(second) == after["current"]
        for jwe in (first, second):
            assert alice.ok("/decrypt", jwe)["data"] == "AAAA"


def used_last(callers: Callers, endpoint: str) -> Any:
    """The kid of the last line of an endpoint in the audit log."""
    log = Config.from_env(callers.environment).audit_path
    assert log
    lines = map(json.loads, log.read_text().splitlines())
    return [line["kid"] for line in lines if line.get("endpoint") == endpoint][-1]


def test_a_mac_is_verified_by_any_version(callers_of_each):
    alice = callers_of_each.alice
    keyset = made(alice, **HMAC)
    mac = {"keyset": keyset["name"], "alg": "HS256"} | DATA
    first = alice.ok("/mac", mac)
    assert first["kid"] == keyset["current"]
    after = rotated(alice, keyset)
    second = alice.ok("/mac", mac)
    assert second["kid"] == after["current"]
    for made_ in (first, second):
        answer = alice.ok("/mac", mac | {"mac": made_["mac"]})
        assert answer == {"kid": made_["kid"], "valid": True}
        assert used_last(callers_of_each, "signing.mac") == made_["kid"]
    answer = alice.ok("/mac", mac | {"mac": "A" * 43})
    assert answer == {"kid": after["current"], "valid": False}
    jws = alice.ok("/mac", mac | {"serialization": "compact"})["jws"]
    assert kid_of({"protected": jws.split(".")[0]}) == after["current"]


def test_messages_of_several_keys_may_name_sets(callers_of_each):
    alice = callers_of_each.alice
    signing, wrapping, other = made(alice, **EC), made(alice, **WRAPPING), made(alice, **WRAPPING)
    signers = [{"keyset": signing["name"], "alg": "ES256"}]
    jws = alice.ok("/sign", {"signers": signers, "serialization": "general"} | DATA)
    assert kid_of(jws["signatures"][0]) == public_kid(alice, signing["current"])
    recipients = [{"keyset": wrapping["name"], "alg": WRAPPING["alg"]}]
    jwe = alice.ok(
        "/encrypt", {"recipients": recipients, "enc": "A128GCM", "serialization": "general"} | DATA
    )
    assert jwe["recipients"][0]["header"]["kid"] == wrapping["current"]
    to = {"keyset": other["name"], "alg": WRAPPING["alg"]}
    again = alice.ok("/rewrap", {"jwe": jwe, "to": to})["jwe"]
    assert again["recipients"][0]["header"]["kid"] == other["current"]
    assert alice.ok("/decrypt", again)["data"] == "AAAA"


def test_a_batch_may_name_sets(callers_of_each):
    alice = callers_of_each.alice
    signing, secret = made(alice, **EC), made(alice, **HMAC)
    requests = [
        {"op": "sign", "body": {"keyset": signing["name"], "alg": "ES256"} | DATA},
        {"op": "sign", "body": {"kid": signing["current"], "alg": "ES256"} | DATA},
        {"op": "mac", "body": {"keyset": secret["name"], "alg": "HS256"} | DATA},
        {"op": "mac", "body": {"keyset": secret["name"], "alg": "HS256"} | DATA},
        {"op": "sign", "body": {"keyset": "set-of-nobody", "alg": "ES256"} | DATA},
    ]
    answers = alice.ok("/batch", {"requests": requests})["responses"]
    assert [one["status"] for one in answers] == [200, 200, 200, 200, 404]
    assert kid_of(answers[0]["body"]) == kid_of(answers[1]["body"])
    assert answers[2]["body"]["kid"] == secret["current"]


def test_a_kid_that_reads_as_a_set_is_written_inside_is_none(callers_of_each):
    """Whatever else is in the same batch or message, and in whichever order."""
    alice = callers_of_each.alice
    signing, secret, wrapping = (made(alice, **members) for members in (EC, HMAC, WRAPPING))
    by_set = {"op": "mac", "body": {"keyset": secret["name"], "alg": "HS256"} | DATA}
    by_kid = {"op": "mac", "body": {"kid": f"/{secret['name']}", "alg": "HS256"} | DATA}
    for requests, statuses in (([by_kid, by_set], [404, 200]), ([by_set, by_kid], [200, 404])):
        answers = alice.ok("/batch", {"requests": requests})["responses"]
        assert [one["status"] for one in answers] == statuses
    signers = [{"keyset": signing["name"]}, {"kid": f"/{signing['name']}"}]
    general = {"serialization": "general"} | DATA
    for order in (signers, signers[::-1]):
        several = [one | {"alg": "ES256"} for one in order]
        assert alice.post("/sign", {"signers": several} | general).refusal == NOT_FOUND
    own = alice.create(kty="oct", alg="A128KW")["kid"]
    jwe = alice.ok(
        "/encrypt", {"recipients": [{"kid": own, "alg": "A128KW"}], "enc": "A128GCM"} | general
    )
    jwe["recipients"][0]["header"]["kid"] = f"/{wrapping['name']}"  # as somebody else calls it
    to = {"keyset": wrapping["name"], "alg": WRAPPING["alg"]}
    again = alice.ok("/rewrap", jwe | {"kid": own, "to": to})
    assert again["recipients"][0]["header"]["kid"] == wrapping["current"]
    assert alice.ok("/decrypt", again)["data"] == DATA["data"]


def test_a_request_for_a_certificate_is_signed_by_the_current_version(callers_of_each):
    alice = callers_of_each.alice
    keyset = made(alice, **EC)
    csr = alice.ok(f"/keysets/{keyset['name']}/csr", {"subject": {"CN": "x"}})["csr"]
    assert csr.startswith("-----BEGIN CERTIFICATE REQUEST-----")


def test_what_is_granted_on_a_set_is_granted_on_each_version(callers_of_each):
    alice, bob = callers_of_each.alice, callers_of_each.bob
    keyset = made(alice, **EC)
    path = f"/keysets/{keyset['name']}"
    sign = {"keyset": keyset["name"], "alg": "ES256"} | DATA
    assert bob.post("/sign", sign).refusal == NOT_FOUND
    assert bob.get(path).refusal == NOT_FOUND
    granted = {"operations": ["sign"]}
    answer = alice.request("PUT", f"{path}/grants/token:bob", json=granted)
    assert answer.body == {"principal": "token:bob"} | granted
    assert bob.get(path).refusal == FORBIDDEN
    assert bob.post("/sign", sign).status == 200
    rotated(alice, keyset)
    jws = bob.ok("/sign", sign)
    assert bob.post("/verify", jws | DATA).refusal == FORBIDDEN
    listed = alice.get(f"{path}/grants").body
    assert listed == {
        "keyset": keyset["name"],
        "grants": [{"principal": "token:bob"} | granted],
    }
    until(lambda: alice.request("DELETE", f"{path}/grants/token:bob").status == 204)
    assert bob.post("/sign", sign).refusal == NOT_FOUND


@pytest.mark.parametrize(
    ("members", "refusal"),
    [
        (EC | {"rotation": ROTATION | {"publish_ahead": "PT59S"}}, BAD_REQUEST),
        (EC | {"rotation": ROTATION | {"every": "P1D"}}, BAD_REQUEST),
        (EC | {"rotation": ROTATION | {"retain": "P1M"}}, BAD_REQUEST),
        (EC | {"rotation": {"every": "P30D"}}, BAD_REQUEST),
        (EC | {"rotation": "P30D"}, BAD_REQUEST),
        (EC | {"alias": "x"}, BAD_REQUEST),
        (EC | {"name": "x"}, BAD_REQUEST),
        (EC | {"expires": "2099-12-31T00:00:00Z"}, BAD_REQUEST),
        (AES | {"k": "A" * 22}, BAD_REQUEST),
        (AES | {"wrapped": WRAPPED}, BAD_REQUEST),
        ({"kty": "EC"}, BAD_REQUEST),
    ],
    ids=str,
)
def test_what_no_key_set_can_be_is_refused(members, refusal, callers):
    name = f"set-{uuid4().hex}"
    assert put(callers.alice, name, **members).refusal == refusal
    assert callers.alice.get(f"/keysets/{name}").refusal == NOT_FOUND


@pytest.mark.parametrize("name", [KID, "a" * 129, "a b"], ids=["kid", "long", "blank"])
def test_a_name_is_like_an_alias(name, callers):
    refused = put(callers.alice, name, **EC)
    assert refused.refusal == BAD_REQUEST
    assert "A-Z a-z 0-9 . _ ~ : -" in refused.body["description"]


@pytest.mark.parametrize("value", ["a b", "/x", KID, 7, ["x"]], ids=str)
def test_what_cannot_be_the_name_of_a_set_is_refused(value, callers):
    body = {"keyset": value, "alg": "ES256"} | DATA
    assert callers.alice.post("/sign", body).refusal == BAD_REQUEST


def test_what_can_be_no_name_names_no_set(callers_of_each):
    alice, path = callers_of_each.alice, "/keysets/a%00"
    assert alice.get(path).refusal == NOT_FOUND
    assert alice.post(f"{path}/rotate", {}).refusal == NOT_FOUND
    assert alice.post(f"{path}/csr", {"subject": {"CN": "x"}}).refusal == NOT_FOUND


def test_a_set_is_named_in_place_of_a_key_and_not_beside_or_as_one(callers):
    alice = callers.alice
    keyset = made(alice, **EC)
    sign = {"alg": "ES256"} | DATA
    beside = {"keyset": keyset["name"], "kid": keyset["current"]}
    assert alice.post("/sign", sign | beside).refusal == BAD_REQUEST
    for kid in (keyset["name"], f"/{keyset['name']}"):
        assert alice.post("/sign", sign | {"kid": kid}).refusal == NOT_FOUND


def test_a_set_and_a_key_may_have_one_name(callers):
    alice = callers.alice
    keyset = made(alice, **EC)
    key = alice.create(**EC, alias=keyset["name"])
    sign = {"alg": "ES256"} | DATA
    by_set = alice.ok("/sign", sign | {"keyset": keyset["name"]})
    by_key = alice.ok("/sign", sign | {"kid": key["kid"]})
    assert kid_of(by_set) == public_kid(alice, keyset["current"])
    assert kid_of(by_key) == keyset["name"]


def test_a_name_is_taken_once(callers):
    keyset = made(callers.alice, **EC)
    assert put(callers.bob, keyset["name"], **EC).refusal == CONFLICT
    assert put(callers.alice, keyset["name"], **AES).refusal == CONFLICT
    assert read(callers.alice, keyset) == keyset


def test_a_policy_and_tags_are_changed_by_another_put(callers_of_each):
    alice = callers_of_each.alice
    keyset = made(alice, **EC, tags=["red"])
    slower = ROTATION | {"every": "P60D"}
    changed = put(alice, keyset["name"], **EC, rotation=slower).body
    assert (changed["rotation"], changed["tags"]) == (slower, ["red"])
    assert changed["rotates"] > keyset["rotates"]
    changed = put(alice, keyset["name"], **EC, tags=["blue"]).body
    assert (changed["rotation"], changed["rotates"], changed["tags"]) == (None, None, ["blue"])
    assert changed["versions"] == keyset["versions"]
    assert alice.get(f"/keys/{keyset['current']}").body["tags"] == ["blue", "jwks"]


def test_a_rotation_is_asked_for(callers_of_each):
    alice = callers_of_each.alice
    keyset = made(alice, **EC)
    at = "2999-01-31T12:00:00Z"
    path = f"/keysets/{keyset['name']}/rotate"
    assert alice.ok(path, {"at": at})["rotates"] == at
    assert alice.ok(path, {})["rotates"] < keyset["rotates"]


def test_the_jwks_of_a_set_has_its_versions_alone(callers_of_each):
    alice = callers_of_each.alice
    keyset = made(alice, **EC)
    answer = alice.get("/.well-known/jwks.json", params={"keyset": keyset["name"]})
    assert [jwk["kid"] for jwk in answer.body["keys"]] == [public_kid(alice, keyset["current"])]
    assert answer.headers["Cache-Control"] == "public, max-age=60"
    other = alice.get("/.well-known/jwks.json", params={"keyset": "set-of-nobody"})
    assert other.body == {"keys": []}


def test_only_a_version_of_the_set_is_revoked(callers):
    alice = callers.alice
    keyset = made(alice, **EC)
    path = f"/keysets/{keyset['name']}/revoke"
    for kid in (str(uuid4()), "x", made(alice, **EC)["current"]):
        assert alice.post(path, {"kid": kid}).refusal == REFUSED
    assert read(alice, keyset) == keyset


OF_THE_SET: Any = {
    ("PATCH", ""): {"name": "mine"},
    ("POST", "/tags"): {"tags": ["mine"]},
    ("DELETE", "/tags"): {"tags": ["mine"]},
    ("PUT", "/grants/token:bob"): {"operations": ["sign"]},
    ("DELETE", "/grants/token:bob"): None,
    ("DELETE", ""): None,
}


@pytest.mark.parametrize(("method", "path"), OF_THE_SET)
def test_what_the_set_decides_is_not_changed_of_a_version_and_the_document_says_so(
    callers, method, path
):
    kid = made(callers.alice, **EC)["current"]
    body = OF_THE_SET[method, path]
    answer = callers.alice.request(method, f"/keys/{kid}{path}", json=body)
    assert answer.refusal == REFUSED
    template = f"/v1/crypto/keys/{{kid}}{path.replace('token:bob', '{grantee}')}"
    document = json.loads((ROOT / "docs" / "openapi-strict.json").read_text("utf-8"))
    assert "422" in document["paths"][template][method.lower()]["responses"]


def test_with_a_set_go_its_versions(callers_of_each):
    alice = callers_of_each.alice
    keyset = made(alice, **EC)
    after = rotated(alice, keyset)
    path = f"/keysets/{keyset['name']}"
    until(lambda: alice.request("DELETE", path).status == 204)  # 503 while it is looked after
    assert alice.get(path).refusal == NOT_FOUND
    assert alice.request("DELETE", path).refusal == NOT_FOUND
    for version in after["versions"]:
        assert alice.get(f"/keys/{version['kid']}").refusal == NOT_FOUND
    assert not published(alice) & {keyset["current"], after["current"]}


def test_sets_are_listed_a_page_at_a_time(callers_of_each):
    alice = callers_of_each.alice
    names = sorted(made(alice, **HMAC)["name"] for _ in range(3))
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        query = {"limit": "2"} | ({"after": after} if after else {})
        page = alice.get("/keysets", params=query).body
        assert len(page["keysets"]) <= 2
        found += [keyset["name"] for keyset in page["keysets"]]
        after = page["after"]
    assert set(names) <= set(found)
    assert found == sorted(found)
    ours = callers_of_each.bob.get("/keysets").body["keysets"]
    assert not set(names) & {keyset["name"] for keyset in ours}
