"""What one worker makes, another one uses or destroys at once, whatever both are doing."""

import threading

import pytest

from app.service import service_of
from tests.shared.api import Api
from tests.shared.examples import examples

pytestmark = pytest.mark.promise  # so that make faults goes many rounds

ROUNDS = examples(20)
AT_ONCE = 4


def created_at_once(url: str, **members: str) -> list[str]:
    """Create keys on as many connections at the same time; return their kids."""
    kids: list[str] = []
    threads = [
        threading.Thread(target=lambda: kids.append(Api.over_http(url).create(**members)["kid"]))
        for _ in range(AT_ONCE)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return kids


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_keys_that_are_made_at_once_work_in_every_worker(server, _round):
    for kid in created_at_once(server, kty="oct", alg="HS256"):
        for _ in range(AT_ONCE):  # a new connection each time, so any worker may get it
            Api.over_http(server).ok("/mac", {"kid": kid, "alg": "HS256", "data": ""})


def test_keys_that_are_made_at_once_are_destroyed_by_any_worker(server, application):
    token = service_of(application).hsm
    before = token.inventory().keys()
    for _ in range(ROUNDS):
        for kid in created_at_once(server, kty="EC", crv="P-256"):
            assert Api.over_http(server).delete(kid).status == 204
    assert token.inventory().keys() <= before  # others' leavings are cleared away at any time


USES = {
    "encrypt": ({"kty": "oct", "alg": "A256GCM"}, "/encrypt", {"alg": "dir", "enc": "A256GCM"}),
    "mac": ({"kty": "oct", "alg": "HS256"}, "/mac", {"alg": "HS256"}),
    "sign": ({"kty": "EC", "crv": "P-256", "alg": "ES256"}, "/sign", {"alg": "ES256"}),
}


def race(url: str, kid: str, path: str, body: dict[str, str]) -> set[int]:
    """Use a key from several connections while it is destroyed; return the statuses."""
    statuses: list[int] = []
    over = threading.Event()

    def use() -> None:
        while not over.is_set():
            statuses.append(Api.over_http(url).post(path, body).status)

    threads = [threading.Thread(target=use) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    assert Api.over_http(url).delete(kid).status == 204
    over.set()
    for thread in threads:
        thread.join()
    assert Api.over_http(url).post(path, body).status == 404
    return set(statuses)


@pytest.mark.parametrize("use", USES)
def test_a_key_that_is_being_destroyed_works_or_is_not_found(server, use):
    members, path, body = USES[use]
    for _ in range(ROUNDS):
        kid = Api.over_http(server).create(**members)["kid"]
        assert race(server, kid, path, body | {"kid": kid, "data": ""}) <= {200, 404}


@pytest.mark.parametrize("alg", ["RSA-OAEP", "RSA-OAEP-256"])
def test_a_key_that_is_being_destroyed_unwraps_or_is_not_found(server, alg):
    for _ in range(examples(8)):
        api = Api.over_http(server)
        kid = api.create(kty="RSA", alg=alg)["kid"]
        jwe = api.ok("/encrypt", {"kid": kid, "alg": alg, "enc": "A128GCM", "data": ""})
        body = {name: jwe[name] for name in ("protected", "encrypted_key")}
        assert race(server, kid, "/keys/unwrap", body) <= {200, 404}
