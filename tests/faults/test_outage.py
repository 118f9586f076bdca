"""A token that goes away as a whole, and comes back: 503 at once, and no restart."""

import hashlib
import hmac
import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.faults.control import EVERY, Fault
from tests.faults.service import Service, protect, use
from tests.shared import injector
from tests.shared.api import Api, b64u
from tests.shared.examples import rounds
from tests.shared.waiting import GIVEN_UP, RECOVERY, REFUSAL, STATE, until

GONE = Fault(function=EVERY, value=injector.DEVICE_ERROR)
HANGING = Fault(function="C_Sign", hangs=True, times=1)
CALL_SECONDS = 2
GROWTH_BYTES = 12 * 2**20
HMAC = {"kty": "oct", "alg": "HS256"}
EC = {"kty": "EC", "crv": "P-256", "alg": "ES256"}


def refused_within(api: Api, key: Any) -> float:
    """Use ``key``, which must be refused; return the seconds that it took."""
    started = time.monotonic()
    assert protect(api, key).refusal == (503, "unavailable")
    return time.monotonic() - started


def lose_token(service: Service) -> None:
    """Let it be gone, and return when the one worker has seen that."""
    service.inject(GONE)
    refused_within(service.api, service.keys[0])
    ready = f"{service.url}/health/ready"
    until(lambda: requests.get(ready, timeout=STATE.seconds).status_code == 503)


def test_a_token_that_dies_is_503_at_once_and_back_without_a_restart(pair):
    key = pair.create(**HMAC)
    workers = pair.workers
    pair.inject(GONE)
    assert max(refused_within(pair.api, key) for _ in range(12)) < REFUSAL.seconds
    pair.heal()
    pair.wait_until_ready()
    assert pair.workers == workers


def test_a_token_that_dies_is_opened_anew_once_by_each_worker(serve_faulty):
    with serve_faulty() as service:
        service.wait_until_ready()
        lose_token(service)
        logins = service.faults.calls("C_Login")
        service.heal()
        service.assert_sound()
        assert service.faults.calls("C_Login") <= logins + 1


def test_a_token_that_dies_while_a_pair_is_made_leaves_nothing_after_reconcile(serve_faulty):
    with serve_faulty() as service, ThreadPoolExecutor() as clients:
        service.wait_until_ready()
        service.inject(Fault(function="C_GenerateKeyPair", hangs=True))  # until the next
        making = clients.submit(lambda: service.api.post("/keys", EC))
        until(lambda: service.faults.struck() > 0)
        service.inject(GONE)
        assert making.result().refusal == (503, "unavailable")
        service.assert_sound()
        assert "left alone): 0\n" in service.reconcile()


def test_a_batch_that_loses_its_token_is_right_as_far_as_it_got(service):
    mac = {"kid": service.create(**HMAC)["kid"], "alg": "HS256", "data": b64u("data")}
    right = service.api.ok("/mac", mac)
    requests_ = [{"op": "mac", "body": mac}] * 300
    with ThreadPoolExecutor() as clients:
        before = service.faults.struck()
        service.inject(Fault(function="C_Sign", times=40), Fault(function="C_Sign", hangs=True))
        asking = clients.submit(lambda: service.api.ok("/batch", {"requests": requests_}))
        until(lambda: service.faults.struck() > before + 40)  # it waits within the batch
        service.inject(GONE)
        answers = [(one["status"], one["body"]) for one in asking.result()["responses"]]
    assert len(answers) == len(requests_)
    assert answers[0] == (200, right)
    assert answers[-1][0] == 503
    assert all(one == (200, right) or one[1]["error"] == "unavailable" for one in answers)


def test_creations_that_are_refused_leave_no_rows_behind(serve_faulty):
    """Clients try again: what each try leaves would have to be cleared away one by one."""
    with serve_faulty() as service, closing(sqlite3.connect(service.registry)) as registry:
        service.wait_until_ready()
        lose_token(service)
        for request in (HMAC, EC) * 10:
            assert service.api.post("/keys", request).status == 503
        assert registry.execute("SELECT count(*) FROM keys").fetchone() == (1,)
        service.assert_sound()


def test_a_key_is_itself_in_every_epoch(serve_faulty):
    """Numeric handles begin anew; an old one would name another key, and nobody would notice."""
    with serve_faulty() as service:
        stay_themselves(service)


def stay_themselves(service: Service) -> None:
    """Have keys used in three epochs, after others have gone."""
    values = [bytes([number]) * 32 for number in range(4)]
    others = [service.create(**EC) for _ in range(3)]
    keys = [service.create(**HMAC, k=b64u(value)) for value in values]
    for other in others:
        service.destroy(other)
    for _ in range(2):
        lose_token(service)
        service.heal()
        service.wait_until_ready()
        for key, value in zip(keys, values, strict=True):
            body = {"kid": key["kid"], "alg": "HS256", "data": b64u("data")}
            right = hmac.digest(value, b"data", hashlib.sha256)
            assert service.api.ok("/mac", body)["mac"] == b64u(right)
    service.assert_sound()


def flap(service: Any, *, seconds: float, gone_seconds: float) -> None:
    """Let the token go and come while it is used; nothing may be wrong."""
    keys = [service.create(**HMAC), service.create(**EC)]
    (worker,) = service.workers
    over = threading.Event()
    seen: Counter[int] = Counter()

    def live(number: int) -> None:
        while not over.is_set():
            seen[use(service.api, keys[number % 2])] += 1
            time.sleep(0.02)

    def wait_for(status: int) -> None:
        before = seen[status]
        until(lambda: seen[status] > before + len(lives), within=RECOVERY)

    with ThreadPoolExecutor() as clients:
        lives = [clients.submit(live, number) for number in range(rounds(4, short=2))]
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                service.inject(GONE)
                wait_for(503)
                time.sleep(gone_seconds)
                service.heal()
                # A process into which its token does not come back makes room for another.
                wait_for(200)
            service.heal()
            service.wait_until_ready()
        finally:  # else a failure would wait for the clients for ever
            over.set()
        for life in lives:
            life.result()
    assert set(seen) == {200, 503}
    assert service.workers == [worker]


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_a_token_that_flaps_gives_right_results_or_503(service):
    flap(service, seconds=4, gone_seconds=1)


@pytest.mark.long
def test_a_token_that_flaps_for_minutes_costs_no_memory(service):
    flap(service, seconds=30, gone_seconds=1)  # a heap grows until it has seen some epochs
    (worker,) = service.workers
    before = resident_bytes(worker)
    flap(service, seconds=300, gone_seconds=3)
    assert resident_bytes(worker) < before + GROWTH_BYTES


def test_a_call_that_hangs_ends_its_worker_only(serve_faulty):
    with serve_faulty(workers=2, JOSE_HSM_CALL_SECONDS=str(CALL_SECONDS)) as service:
        key = service.create(**HMAC)
        service.wait_until_ready()
        service.inject(HANGING)
        service.expected_boots += 1

        def use_or_be_cut_off() -> int | None:
            try:
                return use(service.api, key)
            except requests.RequestException:
                return None

        with ThreadPoolExecutor() as clients:
            stuck = clients.submit(use_or_be_cut_off)
            until(lambda: service.faults.struck() > 0)
            served = sum(use_or_be_cut_off() == 200 for _ in range(20))
            assert served >= 10
            assert stuck.result(timeout=GIVEN_UP.seconds) in {None, 503}
        until(lambda: service.faults.boots >= service.expected_boots)
        service.assert_sound()
