"""What one worker makes, another one uses or destroys at once, whatever both are doing."""

import threading

import pytest

from tests.api import Api

ROUNDS = 15
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
    token = application.extensions["hsm"]
    before = token.inventory().keys()
    for _ in range(ROUNDS):
        for kid in created_at_once(server, kty="EC", crv="P-256"):
            assert Api.over_http(server).delete(kid).status == 204
    assert token.inventory().keys() == before
