"""Failed attempts to authenticate are limited, for each address."""

import pytest

from app.auth.attempts import Attempts
from app.errors import TooManyFailures
from tests.shared.api import Api
from tests.shared.callers import WITH_TOKENS, token_for
from tests.shared.issuer import BAD, Issuer

HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_attempts_run_out_for_one_address():
    attempts = Attempts(3, now=Clock())
    for _ in range(3):
        attempts.fail(HERE)
    with pytest.raises(TooManyFailures) as refused:
        attempts.fail(HERE)
    assert refused.value.retry_after_seconds == 60
    attempts.fail(ELSEWHERE)


def test_attempts_come_back_one_after_the_other():
    clock = Clock()
    attempts = Attempts(2, now=clock)
    attempts.fail(HERE)
    clock.now += 45
    attempts.fail(HERE)
    clock.now += 14.5
    with pytest.raises(TooManyFailures) as refused:
        attempts.fail(HERE)
    assert refused.value.retry_after_seconds == 1
    clock.now += 0.5
    attempts.fail(HERE)
    with pytest.raises(TooManyFailures):
        attempts.fail(HERE)


def test_failures_do_not_fill_the_memory():
    attempts = Attempts(1, now=Clock())
    for number in range(20_000):
        attempts.fail(str(number))
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


def test_no_forged_token_locks_out_whom_it_names_or_who_shares_the_address(
    environment, serve, tmp_path
):
    issuer, path = Issuer(), tmp_path / "jwks.json"
    path.write_text(issuer.jwks)
    limited = issuer.settings(path) | {"JOSE_HSM_AUTH_FAILURES": "3"}
    with serve(environment | limited, workers=1) as url:
        victim = Api.over_http(url, bearer=issuer.token("alice"))
        assert victim.get("/keys").status == 200
        forger = Api.over_http(url, bearer=BAD["claims changed"](issuer))  # they name alice
        assert [forger.get("/keys").status for _ in range(5)] == [401, 401, 401, 429, 429]
        assert victim.get("/keys").status == 200
        new = Api.over_http(url, bearer=issuer.token("alice", jti="another"))
        assert new.get("/keys").status == 200
        assert Api.over_http(url, bearer="jh_" + "A" * 43).get("/keys").status == 429
