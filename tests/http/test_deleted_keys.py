"""Keys that were deleted and can be had back: of use to nobody, shown to some, restored by few."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.shared.api import Answer, Api
from tests.shared.callers import Callers
from tests.shared.chains import chain_for, public_key, x5c

NOT_FOUND, FORBIDDEN, REFUSED = (404, "not_found"), (403, "forbidden"), (422, "crypto_failure")
DAY = timedelta(days=1)
BATCHED = ("/encrypt", "/decrypt", "/sign", "/verify", "/mac")
AGREED = {"alg": "ECDH-ES+A128KW", "enc": "A128GCM"}


def make(api: Api, **members: Any) -> dict[str, Any]:
    """Make a key that can be had back for a day."""
    return dict(api.create(destroy_after="P1D", **members))


def restore(api: Api, kid: str) -> Answer:
    return api.request("POST", f"/keys/{kid}/restore")


class Site:
    """Keys, and requests that use or change them, each good while they are there."""

    def __init__(self, api: Api) -> None:
        self.signer = make(api, kty="EC", crv="P-256", alg="ES256")
        self.reader = make(api, kty="EC", crv="P-256", alg=AGREED["alg"])
        self.secret = make(api, kty="oct", alg="HS256")
        self.cipher = make(api, kty="oct", alg="A128GCM")
        signer, secret = self.signer["kid"], self.secret["kid"]
        data = {"data": "AAAA"}
        sign = {"kid": signer, "alg": "ES256"} | data
        seal = {"kid": self.cipher["kid"], "alg": "dir", "enc": "A128GCM"} | data
        agree = {"kid": self.reader["kid_public"]} | AGREED | data
        mac = {"kid": secret, "alg": "HS256"} | data
        jwe = api.ok("/encrypt", agree)
        self.posts: list[tuple[str, dict[str, Any]]] = [
            ("/sign", sign),
            ("/verify", api.ok("/sign", sign) | data),
            ("/verify", api.ok("/sign", sign | {"serialization": "compact"})),
            ("/mac", mac),
            ("/mac", mac | {"mac": api.ok("/mac", mac)["mac"]}),
            ("/encrypt", seal),
            ("/decrypt", api.ok("/encrypt", seal)),
            ("/encrypt", agree),
            ("/decrypt", jwe),
            ("/keys/unwrap", jwe),
            ("/rewrap", jwe | {"to": {"kid": self.reader["kid"], "alg": AGREED["alg"]}}),
            (f"/keys/{signer}/csr", {"subject": {"CN": "x"}}),
            (f"/keys/{signer}/sign", {"alg": "ES256"} | data),
            (f"/keys/{signer}/tags", {"tags": ["x"]}),
        ]
        chain = {"x5c": x5c(chain_for(public_key(api, signer)))}
        grantee = f"/keys/{secret}/grants/token:bob"
        self.others: list[tuple[str, str, Any]] = [
            ("PUT", f"/keys/{signer}/certificate", chain),
            ("DELETE", f"/keys/{signer}/certificate", None),
            ("GET", f"/keys/{self.signer['kid_public']}/public.pem", None),
            ("PATCH", f"/keys/{secret}", {"name": "x"}),
            ("GET", f"/keys/{secret}/tags", None),
            ("DELETE", f"/keys/{secret}/tags", {"tags": ["x"]}),
            ("GET", f"/keys/{secret}/grants", None),
            ("PUT", grantee, {"operations": ["mac"]}),
            ("DELETE", grantee, None),
        ]

    @property
    def kids(self) -> list[str]:
        return [key["kid"] for key in (self.signer, self.reader, self.secret, self.cipher)]

    def statuses(self, api: Api) -> set[int]:
        """Use the keys in every way; return what is answered, alone and in batches."""
        alone = [api.post(path, body) for path, body in self.posts]
        others = [
            api.request(method, path, **({} if body is None else {"json": body}))
            for method, path, body in self.others
        ]
        parts = [
            {"op": path.removeprefix("/"), "body": body}
            for path, body in self.posts
            if path in BATCHED
        ]
        batch = api.ok("/batch", {"requests": parts})["responses"]
        made = [one.body["kid"] for one in alone if one.status == 200 and "origin" in one.body]
        for kid in made:
            api.delete(kid)
        return {one.status for one in (*alone, *others)} | {part["status"] for part in batch}


def described(api: Api, keys: Site) -> list[dict[str, Any]]:
    """Return what is told of keys; when they were used may be written at any time."""
    return [api.get(f"/keys/{kid}").body | {"last_used": None} for kid in keys.kids]


def published(api: Api, owner: str = "token:alice") -> set[str]:
    query = {"owner": owner}
    keys = api.get("/.well-known/jwks.json", params=query).body["keys"]
    return {jwk["kid"] for jwk in keys}


def listed(api: Api, **query: str) -> Mapping[str, Any]:
    """Return all keys of a list by kid."""
    found: dict[str, Any] = {}
    after: dict[str, str] = {}
    while True:
        page = api.get("/keys", params={"limit": "200"} | query | after).body
        found |= {key["kid"]: key for key in page["keys"]}
        if page["after"] is None:
            return found
        after = {"after": page["after"]}


def test_a_deleted_key_is_of_no_use_and_one_restored_is_as_it_was(callers_of_each):
    alice = callers_of_each.alice
    keys = Site(alice)
    assert keys.statuses(alice) <= {200, 204}
    assert keys.signer["kid_public"] in published(alice)
    for _ in range(2):  # what was restored can be deleted again
        before = described(alice, keys)
        assert [alice.delete(kid).status for kid in keys.kids] == [204] * 4
        assert keys.statuses(alice) == {404}
        assert [alice.delete(kid).refusal for kid in keys.kids] == [NOT_FOUND] * 4
        assert keys.signer["kid_public"] not in published(alice)
        assert {restore(alice, kid).status for kid in keys.kids} == {200}
        assert described(alice, keys) == before
        assert keys.statuses(alice) <= {200, 204}
        assert keys.signer["kid_public"] in published(alice)


def test_who_may_read_it_sees_what_becomes_of_it(callers_of_each):
    alice, auditor = callers_of_each.alice, callers_of_each.auditor
    key = make(alice, kty="EC", crv="P-256", alg="ES256")
    assert key["destroy_after"] == "P1D"
    kid, before = key["kid"], alice.get(f"/keys/{key['kid']}").body
    assert (before["state"], before["destroy_after"], "destroys" in before) == (
        *("active", "P1D"),
        False,
    )
    began = datetime.now(UTC)
    assert alice.delete(key["kid_public"]).status == 204
    shown = alice.get(f"/keys/{kid}").body
    destroys = datetime.fromisoformat(shown.pop("destroys"))
    assert began + DAY <= destroys <= datetime.now(UTC) + DAY
    assert shown == before | {"state": "destroying"}
    for reader in (alice, auditor):
        assert listed(reader, owner="token:alice")[kid]["state"] == "destroying"
        assert kid in listed(reader, state="destroying")
        assert kid not in listed(reader, state="active")
        assert reader.get(f"/keys/{key['kid_public']}").body["state"] == "destroying"
    assert callers_of_each.bob.get(f"/keys/{kid}").refusal == FORBIDDEN
    assert kid not in listed(callers_of_each.bob)


def test_a_key_that_says_nothing_is_destroyed_at_once(callers):
    key = callers.alice.create(kty="oct", alg="HS256")
    assert "destroy_after" not in key
    assert callers.alice.delete(key["kid"]).status == 204
    for answer in (callers.alice.get(f"/keys/{key['kid']}"), restore(callers.alice, key["kid"])):
        assert answer.refusal == NOT_FOUND


def test_an_imported_key_can_be_had_back_too(callers):
    key = make(callers.alice, kty="oct", alg="HS256", k="A" * 43)
    assert callers.alice.delete(key["kid"]).status == 204
    assert restore(callers.alice, key["kid"]).body["state"] == "active"


@pytest.mark.parametrize("state", ["deactivated", "compromised"])
def test_a_key_comes_back_in_the_state_that_it_had(state, callers):
    kid = make(callers.alice, kty="oct", alg="HS256")["kid"]
    callers.alice.request("PATCH", f"/keys/{kid}", json={"state": state})
    before = callers.alice.get(f"/keys/{kid}").body
    assert callers.alice.delete(kid).status == 204
    assert restore(callers.alice, kid).body == before
    assert before["state"] == state


def test_only_a_deleted_key_is_restored(callers):
    kid = make(callers.alice, kty="oct", alg="HS256")["kid"]
    answer = restore(callers.alice, kid)
    assert answer.refusal == REFUSED
    assert answer.body["description"] == "The key is active, and there is nothing to restore"
    assert restore(callers.alice, str(uuid4())).refusal == NOT_FOUND
    assert restore(callers.alice, "no key").refusal == NOT_FOUND


def test_no_state_is_set_to_destroying(callers):
    kid = make(callers.alice, kty="oct", alg="HS256")["kid"]
    answer = callers.alice.request("PATCH", f"/keys/{kid}", json={"state": "destroying"})
    assert answer.refusal == (400, "bad_request")


def test_who_may_destroy_or_use_a_key_does_not_restore_it(callers_of_each):
    alice, bob, admin = callers_of_each.alice, callers_of_each.bob, callers_of_each.admin
    kid = make(alice, kty="oct", alg="HS256")["kid"]
    grant = {"operations": ["destroy", "mac", "read"]}
    assert alice.request("PUT", f"/keys/{kid}/grants/token:bob", json=grant).status == 200
    assert bob.delete(kid).status == 204
    assert bob.get(f"/keys/{kid}").body["state"] == "destroying"
    assert restore(bob, kid).refusal == FORBIDDEN
    assert restore(callers_of_each.auditor, kid).refusal == FORBIDDEN
    assert restore(admin, kid).status == 200
    bob.ok("/mac", {"kid": kid, "alg": "HS256", "data": ""})  # what was granted is granted


def test_an_alias_stays_with_the_key_and_names_it(callers_of_each):
    alice, bob = callers_of_each.alice, callers_of_each.bob
    alias = f"alias-{uuid4().hex}"
    kid = make(alice, kty="oct", alg="HS256", alias=alias)["kid"]
    assert alice.delete(alias).status == 204
    taken = bob.post("/keys", {"kty": "oct", "alg": "HS256", "alias": alias})
    assert taken.refusal == (409, "conflict")
    mac = {"kid": alias, "alg": "HS256", "data": ""}
    assert alice.post("/mac", mac).refusal == NOT_FOUND
    assert restore(bob, alias).refusal == NOT_FOUND  # nobody finds out by guessing
    assert alice.get(f"/keys/{alias}").body["kid"] == kid
    assert restore(alice, alias).body["alias"] == alias
    alice.ok("/mac", mac)


def test_a_creation_that_is_repeated_after_the_deletion_is_404_until_the_key_is_back(callers):
    once = {"headers": {"Idempotency-Key": uuid4().hex}}
    body = {"kty": "oct", "alg": "HS256", "destroy_after": "P1D"}
    answer = callers.alice.post("/keys", body, **once)
    assert answer.status == 200, answer
    key = answer.body
    callers.alice.delete(key["kid"])
    assert callers.alice.post("/keys", body, **once).refusal == NOT_FOUND
    restore(callers.alice, key["kid"])
    assert callers.alice.post("/keys", body, **once).body == key


def audited(callers: Callers, kid: str, *, name: str = "kid") -> list[dict[str, Any]]:
    path = Path(callers.environment["JOSE_HSM_STATE_DIR"]) / "audit.log"
    entries = map(json.loads, path.read_text().splitlines())
    return [entry for entry in entries if entry.get(name) == kid]


def test_the_audit_log_says_until_when_it_can_be_restored_and_that_it_was(callers_of_each):
    alice = callers_of_each.alice
    kid = make(alice, kty="oct", alg="HS256")["kid"]
    alice.delete(kid)
    destroys = datetime.fromisoformat(alice.get(f"/keys/{kid}").body["destroys"])
    restore(callers_of_each.bob, kid)
    restore(alice, kid)
    deleted, refused, restored = audited(callers_of_each, kid)
    assert (deleted["endpoint"], deleted["status"]) == ("keys.destroy", 204)
    assert datetime.fromisoformat(deleted["destroy_at"]) == destroys
    assert (refused["endpoint"], refused["status"]) == ("keys.restore", 403)
    assert "destroy_at" not in refused
    assert (restored["endpoint"], restored["status"]) == ("keys.restore", 200)
    assert restored["destroy_at"] is None
    assert not any("destroyed" in line for line in (deleted, refused, restored))


def test_the_audit_log_says_until_when_the_keys_of_a_set_can_be_restored(callers_of_each):
    alice, name = callers_of_each.alice, f"set-{uuid4().hex}"
    members = {"kty": "oct", "alg": "HS256", "destroy_after": "P1D"}
    path = f"/keysets/{name}"
    kid = alice.request("PUT", path, json=members).body["current"]
    assert alice.request("DELETE", path).status == 204
    destroys = datetime.fromisoformat(alice.get(f"/keys/{kid}").body["destroys"])
    *_, deleted = audited(callers_of_each, name, name="keyset")
    assert (deleted["endpoint"], deleted["versions"]) == ("keysets.destroy", [kid])
    assert datetime.fromisoformat(deleted["destroy_at"]) == destroys


@pytest.mark.parametrize("value", ["P1Y", "PT0S", "P3651D", "", 30, True, ["P1D"]])
def test_a_time_of_no_certain_length_is_refused_and_makes_no_key(value, callers):
    body = {"kty": "oct", "alg": "HS256", "destroy_after": value}
    answer = callers.alice.post("/keys", body)
    assert answer.refusal == (400, "bad_request")
    assert "'destroy_after'" in answer.body["description"]


def test_a_service_has_a_default(environment, serve):
    with serve(environment | {"JOSE_HSM_DESTROY_AFTER": "P30D"}, workers=1) as url:
        api = Api.over_http(url)
        kids = [api.create(kty="oct", alg="HS256")["kid"], make(api, kty="oct", alg="HS256")["kid"]]
        began = datetime.now(UTC)
        for kid, after in zip(kids, (timedelta(days=30), DAY), strict=True):
            assert api.delete(kid).status == 204
            destroys = datetime.fromisoformat(api.get(f"/keys/{kid}").body["destroys"])
            assert began + after <= destroys <= datetime.now(UTC) + after
            assert restore(api, kid).status == 200
