"""Who is overdue in the token, on a clock that the test holds."""

import pytest

from hsm.life import watchdog
from hsm.life.watchdog import Watchdog

LOOK_SECONDS = 0.5


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ended(monkeypatch):
    """What processes have ended over."""
    ended: list[str] = []
    monkeypatch.setattr(watchdog, "_end_process", ended.append)
    return ended


def looks(dog: Watchdog, clock: Clock, *pauses: float) -> None:
    for seconds in pauses:
        clock.now += seconds
        dog._look()


def test_a_call_that_does_not_come_back_ends_the_process(ended):
    clock = Clock()
    dog = Watchdog(clock)
    with dog.watching("a call", 2):
        looks(dog, clock, *[LOOK_SECONDS] * 4)
        assert ended == []
        looks(dog, clock, LOOK_SECONDS)
        assert ended == ["a call"]


def test_a_process_that_was_stopped_is_not_ended_for_it(ended):
    clock = Clock()
    dog = Watchdog(clock)
    with dog.watching("a call", 2):
        looks(dog, clock, LOOK_SECONDS, 3600, LOOK_SECONDS)
    with dog.watching("another", 2):  # nor is anybody later given more time
        looks(dog, clock, *[LOOK_SECONDS] * 4)
        assert ended == []
        looks(dog, clock, LOOK_SECONDS)
        assert ended == ["another"]


def test_who_waits_for_others_is_not_overdue(ended):
    clock = Clock()
    dog = Watchdog(clock)
    with dog.watching("a call", 2):
        looks(dog, clock, *[LOOK_SECONDS] * 3)
        with dog.resting():
            looks(dog, clock, *[LOOK_SECONDS] * 10)
        looks(dog, clock, LOOK_SECONDS)
        assert ended == []
        looks(dog, clock, LOOK_SECONDS)
        assert ended == ["a call"]


def test_what_is_watched_while_another_waits_is_overdue_as_ever(ended):
    clock = Clock()
    dog = Watchdog(clock)
    with dog.resting(), dog.watching("a call", 2):
        looks(dog, clock, *[LOOK_SECONDS] * 5)
    assert ended == ["a call"]
    with dog.resting():
        looks(dog, clock, *[LOOK_SECONDS] * 10)
    assert ended == ["a call"]
