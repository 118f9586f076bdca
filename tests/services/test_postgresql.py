"""PostgreSQL as the registry of several services at once."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
import requests

from scripts.throwaway import make_token
from tests.shared.api import Answer, Api
from tests.shared.callers import WITH_TOKENS, token_for
from tests.shared.command import jose_hsm
from tests.shared.waiting import START, STATE, until

DENIED = (403, "forbidden")
NOT_FOUND = (404, "not_found")
FAILURE = (422, "crypto_failure")
UNAVAILABLE = (503, "unavailable")
MAC = {"kty": "oct", "alg": "HS256"}
PAIR = {"kty": "EC", "crv": "P-256", "alg": "ES256"}


# --- Two services ---


class Services(NamedTuple):
    """Two services as alice and bob call them; ``environment`` is that of the first."""

    environment: dict[str, str]
    urls: tuple[str, str]
    alice: tuple[Api, Api]
    bob: tuple[Api, Api]


def until_ready(url: str) -> None:
    def is_ready() -> bool:
        return requests.get(f"{url}/health/ready", timeout=STATE.seconds).status_code == 200

    until(is_ready, within=START)


@pytest.fixture(scope="module")
def services(postgresql: Any, serve: Any, tmp_path_factory: Any) -> Iterator[Services]:
    """Services that share the registry and the token, and no ``STATE_DIR``, as on two hosts."""
    environment = make_token(tmp_path_factory.mktemp("one") / "state") | WITH_TOKENS
    environment["JOSE_HSM_DATABASE_URL"] = postgresql.registry()
    other = {"JOSE_HSM_STATE_DIR": str(tmp_path_factory.mktemp("two"))}
    with serve(environment, workers=1) as one:
        until_ready(one)  # SoftHSM rewrites its token when somebody logs in
        with serve(environment | other, workers=1) as two:
            until_ready(two)

            def callers(name: str) -> tuple[Api, Api]:
                bearer = token_for(environment, f"token:{name}")
                return Api.over_http(one, bearer=bearer), Api.over_http(two, bearer=bearer)

            yield Services(environment, (one, two), callers("alice"), callers("bob"))


both_ways = pytest.mark.parametrize("first", [0, 1])
TIMES = range(5)


def mac(api: Api, kid: str) -> Any:
    return api.post("/mac", {"kid": kid, "alg": "HS256", "data": "AAAA"})


@both_ways
def test_a_key_made_through_one_works_through_the_other(services, first):
    here, there = services.alice[first], services.alice[1 - first]
    for _ in TIMES:
        kid = here.create(**MAC)["kid"]
        made = mac(there, kid)
        assert made.status == 200
        assert mac(here, kid).body == made.body
        pair = here.create(**PAIR)
        jws = there.ok("/sign", {"kid": pair["kid"], "alg": "ES256", "data": ""}) | {"data": ""}
        assert here.ok("/verify", jws)["valid"] is True
        assert there.get(f"/keys/{pair['kid']}").body["jwk"]["kid"] == pair["kid_public"]


@both_ways
def test_a_key_destroyed_through_one_is_gone_in_the_other(services, first):
    here, there = services.alice[first], services.alice[1 - first]
    for _ in TIMES:
        kid = here.create(**MAC)["kid"]
        assert mac(there, kid).status == 200  # it has been seen and used there
        assert here.delete(kid).status == 204
        assert mac(there, kid).refusal == NOT_FOUND
        assert there.delete(kid).refusal == NOT_FOUND


@both_ways
def test_a_grant_given_or_taken_through_one_counts_in_the_other(services, first):
    alice, bob = services.alice[first], services.bob[1 - first]
    kid = alice.create(**MAC)["kid"]
    for _ in TIMES:
        assert mac(bob, kid).refusal == DENIED
        path = f"/keys/{kid}/grants/token:bob"
        assert alice.request("PUT", path, json={"operations": ["mac"]}).status == 200
        assert mac(bob, kid).status == 200
        assert alice.request("DELETE", path).status == 204


@both_ways
def test_a_state_or_an_owner_changed_through_one_counts_in_the_other(services, first):
    here, there = services.alice[first], services.alice[1 - first]
    kid = here.create(**MAC)["kid"]
    for _ in TIMES:
        here.request("PATCH", f"/keys/{kid}", json={"state": "deactivated"})
        assert mac(there, kid).refusal == FAILURE
        here.request("PATCH", f"/keys/{kid}", json={"state": "active"})
        assert mac(there, kid).status == 200
    assert here.request("PATCH", f"/keys/{kid}", json={"owner": "token:bob"}).status == 200
    assert mac(there, kid).refusal == DENIED
    assert mac(services.bob[1 - first], kid).status == 200


def test_a_token_revoked_at_one_is_void_at_both(services):
    bearer = token_for(services.environment, "token:carol")
    callers = [Api.over_http(url, bearer=bearer) for url in services.urls]
    assert [api.get("/keys").status for api in callers] == [200, 200]
    listed = jose_hsm(services.environment, "token", "list")
    [row] = [line for line in listed.stdout.splitlines() if "carol" in line]
    assert jose_hsm(services.environment, "token", "revoke", row.split()[0]).returncode == 0
    assert [api.get("/keys").refusal for api in callers] == [(401, "unauthorized")] * 2


def test_a_request_repeated_at_the_other_makes_no_second_key(services):
    answers = [
        api.post("/keys", MAC, headers={"Idempotency-Key": "once"}) for api in services.alice
    ]
    assert answers[0].status == 200
    assert answers[0].body == answers[1].body


def answered(api: Api, kid: str) -> Answer | None:
    """Return an answer that is another than that the registry is away."""
    answer = mac(api, kid)
    return None if answer.status == 503 and answer.refusal == UNAVAILABLE else answer


def test_both_say_503_while_the_registry_hangs_and_go_on_afterwards(services, postgresql):
    kid = services.alice[0].create(**MAC)["kid"]
    callers = services.alice
    expected = mac(callers[0], kid).body
    with postgresql.hanging():
        for api in callers:
            assert mac(api, kid).refusal == UNAVAILABLE
            assert api.post("/keys", MAC).refusal == UNAVAILABLE
            assert api.get("/keys").refusal == UNAVAILABLE
    for api in callers:
        assert until(partial(answered, api, kid)).body == expected
        assert api.post("/keys", MAC).status == 200


def test_both_say_503_while_the_registry_is_away_and_go_on_afterwards(services, postgresql):
    kid = services.alice[0].create(**MAC)["kid"]
    callers = services.alice
    expected = [mac(api, kid).body for api in callers]
    postgresql.stop()
    try:
        for api in callers:
            answer = mac(api, kid)
            assert answer.refusal == UNAVAILABLE
            assert int(answer.headers["Retry-After"]) > 0
            assert api.post("/keys", MAC).refusal == UNAVAILABLE
    finally:
        postgresql.start()
    for _ in TIMES:
        assert [mac(api, kid).body for api in callers] == expected
        assert [api.post("/keys", MAC).status for api in callers] == [200, 200]
