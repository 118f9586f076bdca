"""Two who do the same at once, in two workers."""

import threading

import pytest

from tests.faults.service import Service, outcome
from tests.shared.api import Api
from tests.shared.examples import rounds
from tests.shared.waiting import until

EC = {"kty": "EC", "crv": "P-256", "alg": "ES256"}


def decided(api: Api, kid: str) -> str | None:
    """Destroy a key; ``None`` if the other has kept the registry to itself for too long."""
    found = outcome(api.delete(kid))
    return None if found == "unavailable" else found


def destroy_twice(service: Service, *, times: int) -> None:
    """Have two clients destroy one key at the same moment, again and again."""
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    def destroy(kid: str, api: Api) -> None:
        barrier.wait()
        outcomes.append(until(lambda: decided(api, kid)))

    for _ in range(times):
        kid = service.api.create(**EC)["kid"]
        apis = [service.api, service.api]
        for api in apis:  # connected before, so that they come at once
            api.post("/sign", {"kid": kid, "alg": "ES256", "data": ""})
        outcomes.clear()
        threads = [threading.Thread(target=destroy, args=(kid, api)) for api in apis]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["not_found", "ok"]
    assert "left alone): 0\n" in service.reconcile("--dry-run")  # nor half of one


def test_of_two_who_destroy_a_key_one_finds_it(pair):
    destroy_twice(pair, times=rounds(15, short=8))


@pytest.mark.long
def test_of_two_who_destroy_a_key_one_finds_it_every_time(pair):
    destroy_twice(pair, times=500)
