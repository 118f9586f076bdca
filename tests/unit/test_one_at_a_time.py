"""Short work is done by one thread at a time, long work side by side, and nobody waits for ever."""

from unittest.mock import Mock

import pytest

from app.keys.batch import one_at_a_time
from app.keys.batch.one_at_a_time import OneAtATime

KIND = ("mac", "HS256")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """The time, which stands still."""
    clock = Mock()
    clock.perf_counter.return_value = 0.0
    monkeypatch.setattr(one_at_a_time, "time", clock)
    return clock


def is_alone(work: OneAtATime, clock: Mock, *, seconds: float, pieces: int) -> bool:
    """Do so many pieces of work, which take so long together; tell whether nobody can beside it."""
    done: list[object] = []
    with work.measured(KIND, done):
        done += [None] * pieces
        clock.perf_counter.return_value += seconds
        return work._lock.locked()


def test_short_work_is_done_by_one_at_a_time():
    work = OneAtATime()
    with work.short():
        assert work._lock.locked()
    assert not work._lock.locked()


def test_what_is_not_known_may_be_long(clock):
    assert not is_alone(OneAtATime(), clock, seconds=0.01, pieces=100)


def test_what_was_short_once_was_disturbed_when_it_was_long(clock):
    work = OneAtATime()
    assert not is_alone(work, clock, seconds=10.0, pieces=100)
    assert not is_alone(work, clock, seconds=0.01, pieces=100)
    assert is_alone(work, clock, seconds=10.0, pieces=100)
    assert is_alone(work, clock, seconds=10.0, pieces=100)


def test_what_is_long_is_done_side_by_side(clock):
    work = OneAtATime()
    assert [is_alone(work, clock, seconds=0.1, pieces=100) for _ in range(3)] == [False] * 3


def test_of_what_failed_at_once_nothing_is_known(clock):
    work = OneAtATime()
    assert [is_alone(work, clock, seconds=0.0, pieces=0) for _ in range(3)] == [False] * 3


def test_who_has_waited_in_vain_goes_on(monkeypatch):
    monkeypatch.setattr(one_at_a_time, "_PATIENCE_SECONDS", 0.0)
    work = OneAtATime()
    with work.short():
        with work.short():
            pass
        assert work._lock.locked()
    assert not work._lock.locked()


def test_work_that_fails_lets_the_next_one_in():
    work = OneAtATime()
    with pytest.raises(ValueError, match="bad"), work.short():
        raise ValueError("bad")
    assert not work._lock.locked()
