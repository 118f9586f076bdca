"""One principal who asks for more than there are threads, and others who want to be served."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from scripts.throwaway import make_token
from tests.faults.control import Fault
from tests.faults.service import Service, serving
from tests.shared.api import Answer, Api
from tests.shared.callers import WITH_TOKENS, token_for
from tests.shared.waiting import until

THREADS = 16
MANY = 3 * THREADS
BATCHES = THREADS + 8
SLOW = Fault(function="C_SignInit", delay_seconds=0.4)
PATIENT = {"JOSE_HSM_REQUEST_SECONDS": "600"}


class Callers:
    """Alice, who asks much, and Bob; each call is on a connection of its own."""

    def __init__(self, service: Service) -> None:
        self._url = service.url
        self._tokens = {
            name: token_for(service.settings, f"token:{name}") for name in ("alice", "bob")
        }
        self.kid = self.api("alice").create(kty="oct", alg="HS256")["kid"]

    def api(self, name: str) -> Api:
        return Api.over_http(self._url, bearer=self._tokens[name])

    def mac(self) -> Answer:
        return self.api("alice").post("/mac", self._body)

    def batch(self) -> Answer:
        parts = [{"op": "mac", "body": self._body} for _ in range(2)]
        return self.api("alice").post("/batch", {"requests": parts})

    @property
    def _body(self) -> dict[str, str]:
        return {"kid": self.kid, "alg": "HS256", "data": ""}


@contextmanager
def slow_service(tmp_path: Any, **settings: str) -> Iterator[Callers]:
    """A worker whose MACs take a while."""
    many = {"JOSE_HSM_SESSIONS": str(THREADS), "JOSE_HSM_SESSION_WAIT_SECONDS": "60"}
    environment = {**make_token(tmp_path / "state"), **WITH_TOKENS, **many, **settings}
    with serving(tmp_path, settings=environment) as service:
        callers = Callers(service)
        service.inject(SLOW)
        yield callers


def asked(pool: ThreadPoolExecutor, call: Any, times: int) -> list[Future[Answer]]:
    return [pool.submit(call) for _ in range(times)]


def unanswered(futures: list[Future[Answer]]) -> int:
    return sum(not future.done() for future in futures)


def statuses(futures: list[Future[Answer]]) -> Counter[int]:
    return Counter(future.result().status for future in futures)


def until_under_way(futures: list[Future[Answer]]) -> None:
    """Return when the first is answered: all threads that can be had are taken."""
    until(lambda: unanswered(futures) < len(futures))


@pytest.mark.parametrize(("call", "times"), [("mac", MANY), ("batch", BATCHES)])
def test_who_asks_too_much_at_once_waits_alone(tmp_path, call, times):
    with slow_service(tmp_path, **PATIENT) as callers, ThreadPoolExecutor(MANY) as pool:
        flood = asked(pool, getattr(callers, call), times)
        until_under_way(flood)
        assert callers.api("bob").get("/keys").status == 200
        assert unanswered(flood) >= THREADS, "others stood in line"
        assert statuses(flood) == {200: times}  # nobody is lost


def test_batches_leave_turns_to_their_own_principal(tmp_path):
    with slow_service(tmp_path, **PATIENT) as callers, ThreadPoolExecutor(MANY) as pool:
        batches = asked(pool, callers.batch, BATCHES)
        until_under_way(batches)
        assert callers.mac().status == 200
        assert unanswered(batches) >= THREADS
        assert statuses(batches) == {200: BATCHES}


def test_who_waits_too_long_is_told_when_to_come_again(tmp_path):
    with (
        slow_service(tmp_path, JOSE_HSM_REQUEST_SECONDS="1") as callers,
        ThreadPoolExecutor(MANY) as pool,
    ):
        flood = asked(pool, callers.mac, MANY)
        answers = [future.result() for future in flood]
        refused = [answer for answer in answers if answer.status != 200]
        assert refused
        for answer in refused:
            assert answer.refusal == (429, "too_many_requests")
            assert "of this principal" in answer.body["description"]
            assert int(answer.headers["Retry-After"]) > 0
        assert len(refused) < MANY
