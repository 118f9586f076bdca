"""A key is called by its alias wherever a kid is taken, and by whoever may know of it."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from jwcrypto import jwe, jwk, jws

from app.service import service_of
from scripts.throwaway import make_token
from tests.shared.api import Api, b64u, header, unb64u
from tests.shared.callers import token_for
from tests.shared.reads import reads_of, unasked

BAD_REQUEST = (400, "bad_request")
DENIED = (403, "forbidden")
NOT_FOUND = (404, "not_found")
TAKEN = (409, {"error": "conflict", "description": "Field 'alias' is that of another key"})
EC = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
RSA = {"kty": "RSA", "alg": "RSA-OAEP"}
AES = {"kty": "oct", "alg": "A128GCM"}
HMAC = {"kty": "oct", "alg": "HS256"}
DATA = b64u("data")
SECRET = {"kty": "oct", "alg": "HS256", "k": b64u(bytes(32))}


def new_alias() -> str:
    return f"key:{uuid4().hex}"


def change(api: Api, kid: str, **members: Any) -> Any:
    return api.request("PATCH", f"/keys/{kid}", json=members)


def head(protected: str) -> Any:
    return json.loads(unb64u(protected))


def signed(api: Api, kid: str) -> Any:
    return api.ok("/sign", {"kid": kid, "alg": "ES256", "data": DATA}) | {"data": DATA}


def sealed(api: Api, kid: str, alg: str = "RSA-OAEP") -> Any:
    return api.ok("/encrypt", {"kid": kid, "alg": alg, "enc": "A128GCM", "data": DATA})


# --- What an alias is ---

GOOD = ("7", "a", "...", "~", ":-", "2011-04-29", "urn:example:key", "A.b_c~d:e-f", "x" * 128)
BAD = {
    "empty": "",
    "too long": "x" * 129,
    "like a UUID": str(uuid4()),
    "like a UUID in capitals": str(uuid4()).upper(),
    "of other characters": "frodo@hobbiton",
    "with a slash": "a/b",
    "with a blank": "a b",
    "with an end of line": "a\n",
    "with NUL": "a\0",
    "with an accent": "é",
    "a step of a path": ".",
    "a step back": "..",
    "a number": 5,
    "an array": ["a"],
    "an object": {},
    "false": False,
}


@pytest.mark.parametrize("alias", GOOD)
def test_an_alias_is_of_a_few_characters(live, alias):
    key = live.create(**AES, alias=alias)
    assert key["alias"] == alias
    assert live.get(f"/keys/{alias}").body["kid"] == key["kid"]
    assert live.delete(alias).status == 204


@pytest.mark.parametrize("alias", BAD.values(), ids=BAD)
def test_what_is_no_alias_is_refused_before_anything_is_asked(
    local, application, chaos, alias, request
):
    key = local.create(**AES)
    with unasked(application, chaos):
        for body in (AES, SECRET):
            assert local.post("/keys", body | {"alias": alias}).refusal == BAD_REQUEST
        assert change(local, key["kid"], alias=alias).refusal == BAD_REQUEST
    assert local.get(f"/keys/{key['kid']}").body["alias"] is None


WITHOUT: tuple[dict[str, Any], ...] = ({}, {"alias": None}, {"alias": "other:name"})


@pytest.mark.parametrize("members", WITHOUT)
def test_the_kid_of_a_jwk_is_no_alias_unless_that_is_asked_for(live, members):
    kid = new_alias()
    key = live.create(**SECRET, kid=kid, **members)
    assert key.get("alias") == members.get("alias")
    assert live.get(f"/keys/{kid}").refusal == NOT_FOUND
    assert live.delete(key["kid"]).status == 204


def test_the_kid_of_a_jwk_is_its_alias_if_that_is_asked_for(live):
    kid = new_alias()
    assert live.create(**SECRET, kid=kid, alias=True)["alias"] == kid
    mac = live.ok("/mac", {"kid": kid, "alg": "HS256", "data": DATA})
    assert mac["kid"] == kid
    assert live.delete(kid).status == 204


UNFIT = {
    "of no import": AES | {"kid": "x:1", "alias": True},
    "without kid": SECRET | {"alias": True},
    "that is null": SECRET | {"kid": None, "alias": True},
    "that is no text": SECRET | {"kid": 5, "alias": True},
    "of other characters": SECRET | {"kid": "bilbo.baggins@hobbiton.example", "alias": True},
    "like a UUID": SECRET | {"kid": str(uuid4()), "alias": True},
}


@pytest.mark.parametrize("body", UNFIT.values(), ids=UNFIT)
def test_a_kid_that_cannot_be_kept_is_refused(live, body):
    answer = live.post("/keys", body)
    assert answer.refusal == BAD_REQUEST
    assert answer.body["description"].startswith(("Field 'kid'", "Field 'alias'"))


# --- One key has it ---


def test_an_alias_is_that_of_one_key(callers):
    alias, other = new_alias(), new_alias()
    callers.alice.create(**AES, alias=alias)
    mine = callers.bob.create(**AES, alias=other)
    for answer in (
        callers.bob.post("/keys", AES | {"alias": alias}),
        callers.bob.post("/keys", SECRET | {"alias": alias}),
        callers.bob.post("/keys", SECRET | {"kid": alias, "alias": True}),
        change(callers.bob, mine["kid"], alias=alias),
        change(callers.bob, other, alias=alias, name="x"),
    ):
        assert (answer.status, answer.body) == TAKEN
    assert callers.bob.get(f"/keys/{other}").body["name"] is None
    assert change(callers.bob, other, alias=other).status == 200


def test_it_is_changed_and_taken_away(callers):
    first, second = new_alias(), new_alias()
    kid = callers.alice.create(**AES, alias=first)["kid"]
    assert change(callers.alice, first, alias=second).body["alias"] == second
    assert callers.alice.get(f"/keys/{first}").refusal == NOT_FOUND
    assert change(callers.alice, second, name="x").body["alias"] == second
    assert change(callers.alice, second, alias=None).body["alias"] is None
    assert callers.alice.get(f"/keys/{second}").refusal == NOT_FOUND
    assert callers.alice.get(f"/keys/{kid}").body["name"] == "x"
    callers.bob.create(**AES, alias=second)


def test_it_is_free_when_the_key_is_destroyed(callers):
    alias = new_alias()
    callers.alice.create(**AES, alias=alias)
    assert callers.alice.delete(alias).status == 204
    assert callers.alice.delete(alias).refusal == NOT_FOUND
    other = callers.bob.create(**AES, alias=alias)
    assert callers.bob.get(f"/keys/{alias}").body["kid"] == other["kid"]


def test_of_many_who_want_it_at_once_one_gets_it(callers):
    alias = new_alias()
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda _: callers.alice.post("/keys", AES | {"alias": alias}), range(8))
        )
    assert sorted(answer.status for answer in answers) == [200] + [409] * 7


def test_a_repeated_creation_is_answered_as_the_first(callers):
    body, once = EC | {"alias": new_alias()}, {"Idempotency-Key": str(uuid4())}
    first, again = (callers.alice.post("/keys", body, headers=once) for _ in range(2))
    assert (again.status, again.body) == (200, first.body)
    assert callers.alice.post("/keys", body).status == 409


def test_repetitions_at_the_same_time_make_one_key(callers):
    body, once = AES | {"alias": new_alias()}, {"Idempotency-Key": str(uuid4())}
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda _: callers.alice.post("/keys", body, headers=once), range(8))
        )
    assert [answer.status for answer in answers] == [200] * 8
    assert len({answer.body["kid"] for answer in answers}) == 1


def test_a_creation_that_fails_leaves_the_alias_free(local, chaos, application):
    alias = new_alias()
    chaos.fail("C_GenerateKey", 0x31)  # CKR_DEVICE_MEMORY
    assert local.post("/keys", AES | {"alias": alias}).status == 503
    chaos.heal()
    assert local.create(**AES, alias=alias)["alias"] == alias
    local.delete(alias)


# --- What is called by it ---


def test_a_jws_names_it_and_is_verified_by_every_name(live):
    alias = new_alias()
    key = live.create(**EC, alias=alias)
    message = signed(live, key["kid"])
    assert unb64u(message["protected"]) == f'{{"alg":"ES256","kid":"{alias}"}}'.encode()
    assert live.ok("/verify", message) == {"kid": alias, "valid": True}
    assert signed(live, alias)["protected"] == message["protected"]
    for kid in (alias, key["kid"], key["kid_public"]):
        assert live.ok("/verify", message | {"kid": kid}) == {"kid": kid, "valid": True}


@pytest.mark.parametrize("named", ["kid", "kid_public"])
def test_a_message_from_before_is_opened_by_its_uuid(live, named):
    key = live.create(**EC)
    message = signed(live, key["kid"]) | {"kid": key[named]}
    alias = new_alias()
    change(live, key["kid"], alias=alias)
    assert live.ok("/verify", message) == {"kid": key[named], "valid": True}
    assert live.ok("/verify", message | {"kid": alias}) == {"kid": alias, "valid": True}


@pytest.mark.parametrize(("key", "alg"), [(RSA, "RSA-OAEP"), (AES, "dir")])
def test_a_jwe_names_it_and_is_decrypted_by_every_name(live, key, alg):
    alias = new_alias()
    made = live.create(**key, alias=alias)
    names = [name for name in (made["kid"], made.get("kid_public"), alias) if name]
    for kid in names:
        message = sealed(live, kid, alg)
        assert head(message["protected"])["kid"] == alias
        assert live.ok("/decrypt", message) == {"kid": alias, "data": DATA}
        for beside in names:
            expected = {"kid": beside, "data": DATA}
            assert live.ok("/decrypt", message | {"kid": beside}) == expected


def test_a_cek_is_unwrapped_and_a_mac_verified_by_it(live):
    alias, other = new_alias(), new_alias()
    live.create(**RSA, alias=alias)
    message = sealed(live, alias)
    assert live.ok("/keys/unwrap", message)["alg"] == "A128GCM"
    live.create(**HMAC, alias=other)
    body = {"kid": other, "alg": "HS256", "data": DATA}
    mac = live.ok("/mac", body)
    assert mac["kid"] == other
    assert live.ok("/mac", body | {"mac": mac["mac"]}) == {"kid": other, "valid": True}


def test_every_path_takes_it(live):
    alias = new_alias()
    key = live.create(**EC, alias=alias)
    described = live.get(f"/keys/{alias}").body
    assert (described["kid"], described["alias"]) == (key["kid"], alias)
    assert described["jwk"]["kid"] == alias
    assert live.get(f"/keys/{alias}/public.pem").content.startswith(b"-----BEGIN PUBLIC KEY")
    tagged = live.request("POST", f"/keys/{alias}/tags", json={"tags": ["x"]}).body
    assert tagged == {"kid": alias, "tags": ["jwks", "x"]}
    path = f"/keys/{alias}/grants/token:bob"
    assert live.request("PUT", path, json={"operations": ["sign"]}).status == 200
    assert live.get(f"/keys/{alias}/grants").body["grants"][0]["principal"] == "token:bob"
    assert live.request("DELETE", path).status == 204
    assert live.delete(alias).status == 204


def test_a_key_that_is_called_like_a_path_is_reached(live):
    key = live.create(**AES, alias="unwrap")
    assert live.get("/keys/unwrap").body["kid"] == key["kid"]
    assert live.delete("unwrap").status == 204


def test_lists_and_the_published_set_have_it(callers, environment):
    someone = Api.over_http(callers.url, bearer=token_for(environment, f"token:{uuid4()}"))
    alias = new_alias()
    key, other = someone.create(**EC, alias=alias), someone.create(**EC)
    listed = {one["kid"]: one["alias"] for one in someone.get("/keys").body["keys"]}
    assert listed == {key["kid"]: alias, other["kid"]: None}
    owner = someone.get(f"/keys/{alias}").body["owner"]
    published = callers.alice.get("/.well-known/jwks.json", params={"owner": owner}).body["keys"]
    assert {one["kid"] for one in published} == {alias, other["kid_public"]}
    token = someone.ok(
        "/sign", {"kid": alias, "alg": "ES256", "data": DATA, "serialization": "compact"}
    )
    keys = jwk.JWKSet.from_json(json.dumps({"keys": published}))
    checked = jws.JWS()
    checked.deserialize(token["jws"], keys.get_key(alias))
    assert checked.payload == b"data"


def test_in_a_batch_it_is_read_with_the_others_at_once(local, application):
    alias, other = new_alias(), new_alias()
    local.create(**HMAC, alias=alias)
    key = local.create(**HMAC, alias=other)
    bodies = [
        {"kid": kid, "alg": "HS256", "data": DATA} for kid in (alias, key["kid"], other, "x:none")
    ]
    with reads_of(service_of(application).registry) as reads:
        answers = local.ok("/batch", {"requests": [{"op": "mac", "body": one} for one in bodies]})
    assert [answer["status"] for answer in answers["responses"]] == [200, 200, 200, 404]
    assert answers["responses"][0]["body"]["kid"] == alias
    assert len(reads) == 1


@pytest.mark.parametrize("inside", ["kid", "alias", "foreign"])
@pytest.mark.parametrize("beside", [None, "kid", "kid_public", "alias"])
def test_a_request_reads_the_registry_once(local, application, inside, beside):
    alias = new_alias()
    key = local.create(**EC, alias=alias)
    names = {"kid": key["kid"], "kid_public": key["kid_public"], "alias": alias, "foreign": "x:1"}
    if inside == "foreign" and beside is None:
        pytest.skip("names no key")
    message = signed(local, alias) | ({"kid": names[beside]} if beside else {})
    message["protected"] = header(alg="ES256", kid=names[inside])
    with reads_of(service_of(application).registry) as reads:
        answer = local.ok("/verify", message)
    assert answer == {"kid": names[beside or inside], "valid": inside == "alias"}
    assert len(reads) == 1 + (
        inside != "alias"
    )  # whoever finds it invalid asks whether it is there


# --- Who may know of it ---

USES: dict[str, Callable[[str], tuple[str, str, Any]]] = {
    "sign": lambda kid: ("POST", "/sign", {"kid": kid, "alg": "ES256", "data": DATA}),
    "verify": lambda kid: (
        "POST",
        "/verify",
        {"protected": header(alg="ES256", kid=kid), "data": DATA, "signature": "AAAA"},
    ),
    "verify beside": lambda kid: (
        "POST",
        "/verify",
        {"protected": header(alg="ES256"), "data": DATA, "signature": "AAAA", "kid": kid},
    ),
    "verify twice": lambda kid: (
        "POST",
        "/verify",
        {"protected": header(alg="ES256", kid="x:1"), "data": "", "signature": "", "kid": kid},
    ),
    "read": lambda kid: ("GET", f"/keys/{kid}", None),
    "pem": lambda kid: ("GET", f"/keys/{kid}/public.pem", None),
    "change": lambda kid: ("PATCH", f"/keys/{kid}", {"name": "x"}),
    "tags": lambda kid: ("GET", f"/keys/{kid}/tags", None),
    "tag": lambda kid: ("POST", f"/keys/{kid}/tags", {"tags": ["x"]}),
    "untag": lambda kid: ("DELETE", f"/keys/{kid}/tags", {"tags": ["x"]}),
    "grants": lambda kid: ("GET", f"/keys/{kid}/grants", None),
    "grant": lambda kid: ("PUT", f"/keys/{kid}/grants/token:bob", {"operations": ["sign"]}),
    "revoke": lambda kid: ("DELETE", f"/keys/{kid}/grants/token:bob", None),
    "destroy": lambda kid: ("DELETE", f"/keys/{kid}", None),
}


@pytest.mark.parametrize("use", USES)
def test_who_has_no_right_to_the_key_learns_nothing_of_its_alias(callers, use):
    alias = new_alias()
    key = callers.alice.create(**EC, alias=alias)
    answers = []
    for kid in (alias, new_alias(), key["kid"]):
        method, path, body = USES[use](kid)
        answers.append(callers.bob.request(method, path, json=body))
    known, unknown, by_kid = answers
    assert (known.status, known.content) == (404, unknown.content)
    assert by_kid.refusal == DENIED  # whoever has a kid was told it
    callers.alice.request(
        "PUT", f"/keys/{alias}/grants/token:bob", json={"operations": ["decrypt"]}
    )
    method, path, body = USES[use](alias)
    assert callers.bob.request(method, path, json=body).refusal == DENIED


def test_in_a_batch_nothing_is_learned_either(callers):
    alias = new_alias()
    callers.alice.create(**HMAC, alias=alias)
    bodies = [{"kid": kid, "alg": "HS256", "data": DATA} for kid in (alias, new_alias())]
    answers = callers.bob.ok("/batch", {"requests": [{"op": "mac", "body": one} for one in bodies]})
    known, unknown = answers["responses"]
    assert known == unknown
    assert known["status"] == 404


def test_who_has_the_right_uses_it(callers):
    alias = new_alias()
    callers.alice.create(**EC, alias=alias)
    path = f"/keys/{alias}/grants/token:bob"
    callers.alice.request("PUT", path, json={"operations": ["sign"]})
    message = signed(callers.bob, alias)
    assert head(message["protected"])["kid"] == alias
    assert callers.auditor.get(f"/keys/{alias}").body["alias"] == alias
    assert callers.auditor.post("/verify", message).refusal == DENIED
    assert change(callers.admin, alias, alias=new_alias()).status == 200


def test_nobody_blocks_messages_of_others_by_taking_their_names(callers):
    """Whatever the owner of the alias grants, and to whom."""
    alias = new_alias()
    public = callers.alice.create(**RSA)
    members = callers.alice.get(f"/keys/{public['kid']}").body["jwk"]
    names = json.dumps({"alg": "RSA-OAEP", "enc": "A128GCM", "kid": alias})
    made = jwe.JWE(b"data", names, recipient=jwk.JWK(**members)).serialize()
    message = json.loads(made) | {"kid": public["kid"]}
    theirs = callers.bob.create(**RSA, alias=alias)
    for grantee in ("token:alice", "*"):
        path = f"/keys/{theirs['kid']}/grants/{grantee}"
        callers.bob.request("PUT", path, json={"operations": ["decrypt", "read"]})
        assert callers.alice.ok("/decrypt", message) == {"kid": public["kid"], "data": DATA}
    callers.bob.request("DELETE", path)  # the lists of others have it while everybody may read it
    mine = callers.alice.create(**RSA)
    change(callers.bob, alias, alias=None)
    change(callers.alice, mine["kid"], alias=alias)
    assert callers.alice.post("/decrypt", message).refusal == BAD_REQUEST


# --- What is written down ---


def test_the_audit_log_has_the_kid_and_what_became_of_the_alias(serve, tmp_path):
    settings = make_token(tmp_path / "state")
    first, second = new_alias(), new_alias()
    with serve(settings, workers=1) as url:
        api = Api.over_http(url)
        key = api.create(**EC, alias=first)
        signed(api, first)
        change(api, first, alias=second)
        change(api, second, alias=None)
        api.post("/sign", {"kid": first, "alg": "ES256", "data": DATA})
    text = (tmp_path / "state" / "audit.log").read_text("utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    kid = key["kid"]
    assert [(line["endpoint"], line["kid"], line.get("alias", "")) for line in lines] == [
        ("keys.create", None, ""),
        ("signing.sign", kid, ""),
        ("keys.change", kid, second),
        ("keys.change", kid, None),
        ("signing.sign", None, ""),
    ]
    assert first not in text  # no name of a caller's that no key has
