"""Sessions that the token has ended, as some do when nobody uses them, cost no request."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from pkcs11 import PKCS11Error

from hsm import Hsm
from hsm.cryptoki.session import Session
from tests.shared import injector
from tests.shared.drivers import result_of
from tests.shared.refs import new_ref
from tests.shared.waiting import until
from tests.token.test_connection import ES256, _injector, _outcome, _started


@contextmanager
def all_lent(token: Hsm) -> Iterator[list[Session]]:
    """Have all sessions that operations share, each of them open."""
    lane = token._connection.token.pool.operations
    lent = [lane.take() or lane._open_session() for _ in range(lane.sessions.size)]
    yield lent
    for session in lent:
        lane.give(session)


def end_all(token: Hsm) -> None:
    """Have the token end them: it answers CKR_SESSION_HANDLE_INVALID, and nobody is told."""
    with all_lent(token) as lent:
        for session in lent:
            with suppress(PKCS11Error):  # it has ended already
                session.raw.close()


def are_all_alive(token: Hsm) -> bool:
    with all_lent(token) as lent:
        return all(session.is_alive() for session in lent)


def use_ended_sessions() -> dict[str, Any]:
    """Sign after all sessions have ended; then after they have, and the token was looked at."""
    token, key, chaos = _started(), new_ref(ES256), _injector()
    token.generate(key)
    connection, answers = token._connection, []

    def sign(original: Any, *words: int) -> int:
        answers.append(int(original(*words)))
        return answers[-1]

    chaos.replace("C_SignInit", sign)
    epoch = connection.token
    end_all(token)
    first = token.sign(key, "ES256", b"data")
    end_all(token)
    second = _outcome(lambda: token.sign(key, "ES256", b"data"))
    end_all(token)
    is_well = connection._is_well()
    until(lambda: are_all_alive(token))
    answers.clear()
    for _ in range(connection.sessions.size):
        token.sign(key, "ES256", b"data")
    is_valid = token.verify(key, "ES256", b"data", first)
    token.destroy(key)
    return {
        "outcome": second,
        "well": is_well,
        "signed": is_valid,
        "answers": sorted(set(answers)),
        "same epoch": connection.token is epoch,
    }


def look_at_the_token() -> bool:
    """Wait until looking at the token has used every session, that of the login too."""
    token, chaos = _started(), _injector()
    used: set[int] = set()

    def note(original: Any, session: int, *words: int) -> int:
        used.add(session)
        return int(original(session, *words))

    pool = token._connection.token.pool
    with all_lent(token) as lent:
        chaos.replace("C_GenerateRandom", note)
        sessions: list[Any] = [each.raw for each in (pool.anchor, *lent)]
    until(lambda: {session.handle for session in sessions} <= used)
    return True


@pytest.fixture(scope="module")
def found(environment: dict[str, str]) -> Any:
    return result_of(environment, use_ended_sessions)


def test_a_request_that_finds_all_sessions_ended_succeeds(found):
    assert found["outcome"] == "done"
    assert found["signed"]


def test_sessions_that_have_ended_are_not_taken_for_a_lost_token(found):
    assert found["well"]
    assert found["same epoch"]


def test_they_are_renewed_before_a_request_finds_them(found):
    assert found["answers"] == [injector.OK]


def test_no_session_is_idle_for_long(environment):
    assert result_of(environment, look_at_the_token)
