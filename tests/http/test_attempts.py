"""Failed attempts to authenticate are limited, for each principal and address."""

import pytest

from app.auth.attempts import Attempts
from app.errors import TooManyFailures
from tests.shared.api import Api
from tests.shared.callers import WITH_TOKENS, token_for

ALICE, BOB = ("token:alice", "192.0.2.1"), ("token:bob", "192.0.2.1")
ELSEWHERE = ("token:alice", "192.0.2.2")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_attempts_run_out_for_one_principal_at_one_address():
    attempts = Attempts(3, now=Clock())
    for _ in range(3):
        attempts.require(ALICE)
        attempts.failed(ALICE)
    with pytest.raises(TooManyFailures) as refused:
        attempts.require(ALICE)
    assert refused.value.retry_after_seconds == 60
    attempts.require(BOB)
    attempts.require(ELSEWHERE)


def test_attempts_come_back_one_after_the_other():
    clock = Clock()
    attempts = Attempts(2, now=clock)
    attempts.failed(ALICE)
    clock.now += 45
    attempts.failed(ALICE)
    clock.now += 14.5
    with pytest.raises(TooManyFailures) as refused:
        attempts.require(ALICE)
    assert refused.value.retry_after_seconds == 1
    clock.now += 0.5
    attempts.require(ALICE)
    attempts.failed(ALICE)
    with pytest.raises(TooManyFailures):
        attempts.require(ALICE)


def test_failures_do_not_fill_the_memory():
    attempts = Attempts(1, now=Clock())
    for number in range(20_000):
        attempts.failed((str(number), "192.0.2.1"))
    assert len(attempts._failures) == 10_000


def test_too_many_failures_are_answered_with_when_to_come_again(environment, serve):
    own = environment | WITH_TOKENS | {"JOSE_HSM_AUTH_FAILURES": "3"}
    with serve(own, workers=1) as url:
        guesser = Api.over_http(url, bearer="jh_" + "A" * 43)
        assert [guesser.get("/keys").status for _ in range(5)] == [401, 401, 401, 429, 429]
        answer = guesser.get("/keys")
        assert answer.refusal == (429, "too_many_requests")
        assert 0 < int(answer.headers["Retry-After"]) <= 60
        good = Api.over_http(url, bearer=token_for(environment, "token:alice"))
        assert good.get("/keys").status == 200
