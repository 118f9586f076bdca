"""Who may do what: owners, grants, roles, and keys that change hands."""

# fixtures

import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from app.keys.access import find
from app.rights import GRANTABLE, Principal, Right
from app.service import service_of
from hsm import KeyNotFound
from tests.shared.api import Api
from tests.shared.callers import WITH_TOKENS, Callers

DENIED = (403, "forbidden")
NOT_FOUND = (404, "not_found")


@pytest.fixture(scope="module")
def callers(callers_of_each: Callers) -> Callers:
    """Each claim here is one of the registry, too."""
    return callers_of_each


@pytest.fixture
def restricted(environment: Any, serve: Any) -> Iterator[Callers]:
    """Those of a service where only the role ``creator`` makes keys."""
    settings = environment | WITH_TOKENS | {"JOSE_HSM_EVERYBODY_CREATES": "0"}
    with serve(settings, workers=1) as url:
        yield Callers.of(settings, url)


@pytest.fixture(scope="module")
def kid(callers: Callers) -> str:
    """A MAC key of alice's."""
    return str(callers.alice.create(kty="oct", alg="HS256")["kid"])


def body(kid: str) -> dict[str, str]:
    return {"kid": kid, "alg": "HS256", "data": ""}


def grants_of(api: Api, kid: str) -> Any:
    return api.get(f"/keys/{kid}/grants").body["grants"]


def test_a_key_belongs_to_who_made_it(callers, kid):
    assert callers.alice.get(f"/keys/{kid}").body["owner"] == "token:alice"
    assert callers.alice.post("/mac", body(kid)).status == 200
    assert callers.bob.post("/mac", body(kid)).refusal == DENIED
    assert callers.bob.post("/mac", body(kid)).body["description"] == "Access denied"


def test_a_grant_gives_its_operations_and_no_others(callers):
    kid = callers.alice.create(kty="oct", alg="HS256")["kid"]
    path = f"/keys/{kid}/grants/token:bob"
    answer = callers.alice.request("PUT", path, json={"operations": ["read", "mac", "mac"]})
    assert answer.body == {"kid": kid, "principal": "token:bob", "operations": ["mac", "read"]}
    assert callers.bob.post("/mac", body(kid)).status == 200
    assert callers.bob.get(f"/keys/{kid}").status == 200
    assert callers.bob.delete(kid).refusal == DENIED
    assert callers.alice.request("PUT", path, json={"operations": ["destroy"]}).status == 200
    assert callers.bob.post("/mac", body(kid)).refusal == DENIED
    assert grants_of(callers.alice, kid) == [{"principal": "token:bob", "operations": ["destroy"]}]
    assert callers.bob.delete(kid).status == 204


def test_a_grant_that_is_taken_away_is_gone_at_once(callers, kid):
    path = f"/keys/{kid}/grants/token:bob"
    for _ in range(3):  # any worker
        callers.alice.request("PUT", path, json={"operations": ["mac"]})
        assert callers.bob.post("/mac", body(kid)).status == 200
        assert callers.alice.request("DELETE", path).status == 204
        assert callers.bob.post("/mac", body(kid)).refusal == DENIED
    assert callers.alice.request("DELETE", path).status == 204


def test_everybody_can_be_granted_something(callers):
    kid = callers.alice.create(kty="oct", alg="HS256")["kid"]
    callers.alice.request("PUT", f"/keys/{kid}/grants/*", json={"operations": ["mac"]})
    assert callers.bob.post("/mac", body(kid)).status == 200
    assert callers.bob.get(f"/keys/{kid}").refusal == DENIED


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_owner_and_administrator_see_and_change_grants(callers, kid, method):
    everything = {"operations": list(GRANTABLE)}
    callers.alice.request("PUT", f"/keys/{kid}/grants/token:bob", json=everything)
    path = f"/keys/{kid}/grants" + ("" if method == "GET" else "/token:carol")
    arguments = {"json": {"operations": ["mac"]}} if method == "PUT" else {}
    for name in ("bob", "auditor"):
        assert getattr(callers, name).request(method, path, **arguments).refusal == DENIED
    for name in ("alice", "admin"):
        assert getattr(callers, name).request(method, path, **arguments).status in (200, 204)


@pytest.mark.parametrize(
    "grantee",
    ["mtls:uri:spiffe://example.org/a/b", "mtls:subject:CN=a,O=b c", "jwt:auth0|5f", "jwt:ä/ö?#%"],
)
def test_a_principal_of_any_form_fits_into_the_path(callers, kid, grantee):
    path = f"/keys/{kid}/grants/{quote(grantee, safe='')}"
    answer = callers.alice.request("PUT", path, json={"operations": ["mac"]})
    assert answer.body["principal"] == grantee
    assert grantee in [grant["principal"] for grant in grants_of(callers.alice, kid)]
    assert callers.alice.request("DELETE", path).status == 204
    assert grantee not in [grant["principal"] for grant in grants_of(callers.alice, kid)]


NO_PRINCIPALS = [
    *("bob", "token:", "password:bob", "token:a\0b", "token:" + "x" * 600, "**"),
    *("token:bob ", "token: bob", "jwt:\u00a0bob", "jwt:bob\u3000", "jwt:a\nb", "jwt:a\u200bb"),
    *("jwt:\ufffd", "mtls:dns:a\ufffdb", "jwt: ", " token:bob"),
]


@pytest.mark.parametrize("grantee", NO_PRINCIPALS)
def test_what_no_principal_is_called_is_refused(callers, kid, grantee):
    path = f"/keys/{kid}/grants/{quote(grantee, safe='')}"
    answer = callers.alice.request("PUT", path, json={"operations": ["mac"]})
    assert answer.refusal == (400, "bad_request")
    answer = callers.alice.request("PATCH", f"/keys/{kid}", json={"owner": grantee})
    assert answer.refusal == (400, "bad_request")


def test_bytes_that_are_no_utf8_name_nobody(callers, kid):
    path = f"/keys/{kid}/grants/jwt:%E9"
    answer = callers.alice.request("PUT", path, json={"operations": ["mac"]})
    assert answer.refusal == (400, "bad_request")


@pytest.mark.parametrize(
    "operations", [None, [], "mac", ["manage"], ["tag"], ["mac", 1], ["MAC"], [None], {}]
)
def test_what_is_no_operation_is_refused(callers, kid, operations):
    path = f"/keys/{kid}/grants/token:bob"
    answer = callers.alice.request("PUT", path, json={"operations": operations})
    assert answer.refusal == (400, "bad_request")


def test_an_administrator_uses_no_key_without_a_grant(callers):
    kid = callers.alice.create(kty="oct", alg="HS256")["kid"]
    assert callers.admin.post("/mac", body(kid)).refusal == DENIED
    assert callers.admin.get(f"/keys/{kid}").status == 200
    assert callers.admin.request("PATCH", f"/keys/{kid}", json={"name": "x"}).status == 200
    assert callers.admin.delete(kid).status == 204


def test_an_auditor_reads_and_does_nothing_else(callers, kid):
    assert callers.auditor.get(f"/keys/{kid}").status == 200
    assert callers.auditor.get(f"/keys/{kid}/tags").status == 200
    assert callers.auditor.request("PATCH", f"/keys/{kid}", json={"name": "x"}).refusal == DENIED
    assert callers.auditor.post(f"/keys/{kid}/tags", {"tags": ["x"]}).refusal == DENIED
    assert callers.auditor.post("/mac", body(kid)).refusal == DENIED
    assert callers.auditor.delete(kid).refusal == DENIED


def test_whoever_may_not_create_neither_imports_nor_unwraps(restricted):
    key = {"kty": "oct", "alg": "HS256"}
    for members in (key, key | {"k": "A" * 43}):
        assert restricted.bob.post("/keys", members).refusal == DENIED
        assert restricted.creator.post("/keys", members).status == 200
        assert restricted.admin.post("/keys", members).status == 200
    pair = restricted.creator.create(kty="RSA", alg="RSA-OAEP")
    jwe = restricted.creator.ok(
        "/encrypt", {"kid": pair["kid"], "alg": "RSA-OAEP", "enc": "A128GCM", "data": ""}
    )
    path = f"/keys/{pair['kid']}/grants/token:bob"
    restricted.creator.request("PUT", path, json={"operations": ["unwrap", "decrypt"]})
    assert restricted.bob.post("/keys/unwrap", jwe).refusal == DENIED
    assert restricted.bob.post("/decrypt", jwe).status == 200
    assert restricted.creator.request("PUT", "/keysets/there", json=key).status == 200
    for name in ("there", "not-there"):
        assert restricted.bob.request("PUT", f"/keysets/{name}", json=key).refusal == DENIED


def test_an_owner_hands_a_key_over_and_has_no_right_left(callers):
    pair = callers.alice.create(kty="EC", crv="P-256")
    kid = pair["kid"]
    answer = callers.alice.request("PATCH", f"/keys/{kid}", json={"owner": "token:bob"})
    assert answer.body["owner"] == "token:bob"
    assert callers.alice.get(f"/keys/{kid}").refusal == DENIED
    assert callers.alice.delete(kid).refusal == DENIED
    assert callers.bob.get(f"/keys/{kid}").status == 200
    assert callers.bob.delete(pair["kid_public"]).status == 204
    assert callers.alice.get(f"/keys/{kid}").refusal == NOT_FOUND


@pytest.mark.parametrize("owner", ["*", "bob", "", 1, "token:"])
def test_a_key_is_not_handed_to_nobody(callers, kid, owner):
    answer = callers.alice.request("PATCH", f"/keys/{kid}", json={"owner": owner})
    assert answer.refusal == (400, "bad_request")


def test_grants_die_with_their_key(callers):
    kid = callers.alice.create(kty="oct", alg="HS256")["kid"]
    callers.alice.request("PUT", f"/keys/{kid}/grants/token:bob", json={"operations": ["mac"]})
    assert callers.alice.delete(kid).status == 204
    for method in ("GET", "PUT", "DELETE"):
        path = f"/keys/{kid}/grants" + ("" if method == "GET" else "/token:bob")
        arguments = {"json": {"operations": ["mac"]}} if method == "PUT" else {}
        assert callers.alice.request(method, path, **arguments).refusal == NOT_FOUND


def test_one_statement_finds_the_key_and_the_grant(application):
    """The registry of the process is SQLite, which tells what it is asked."""
    registry = service_of(application).registry

    def look() -> None:
        unknown = "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11"
        with pytest.raises(KeyNotFound):
            find(registry, Principal("token:bob"), unknown, Right.MAC)

    look()  # from now on this thread has a connection of its own
    statements: list[str] = []
    own = threading.get_ident()

    def note(statement: str) -> None:
        if threading.get_ident() == own:  # others ask now and then whether the registry answers
            statements.append(statement)

    readers = registry._database._readers
    reader = readers.own_on(readers.file)
    assert reader
    with registry._database.engine.connect() as lent_next:
        drivers = [lent_next.connection.driver_connection, reader.connection]
    for driver in drivers:
        driver.set_trace_callback(note)
    try:
        look()
    finally:
        for driver in drivers:
            driver.set_trace_callback(None)
    assert len(statements) == 2, statements
    assert statements[0] == "PRAGMA data_version"  # whether anything has changed
