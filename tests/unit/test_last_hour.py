"""The last hour, by minute: counted once, whoever looks and whatever restarts."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from app.http.router import KINDS
from app.observability import LastHour, Outcomes
from app.observability.kinds import Count, tally

NOON = 1_800_000_000.0 // 60 * 60


class Counters:
    """What a service has answered since it started, and the time."""

    def __init__(self) -> None:
        self.now = NOON
        self.counted: dict[tuple[str, int], int] = {}

    def answer(self, endpoint: str, status: int = 200, number: int = 1) -> None:
        self.counted[endpoint, status] = self.counted.get((endpoint, status), 0) + number

    def __call__(self) -> list[Count]:
        return [Count(*key, number) for key, number in self.counted.items()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.json"


@pytest.fixture
def counters() -> Counters:
    return Counters()


Sampler = Callable[..., LastHour]


@pytest.fixture
def sampler(path: Path, counters: Counters) -> Sampler:
    """A process that samples; each call is another one."""

    def sampler(source: str = "master", counts: Counters = counters) -> LastHour:
        return LastHour(path, source=source, counts=counts, kinds=KINDS, now=lambda: counters.now)

    return sampler


def signed(history: LastHour) -> list[int]:
    return [outcomes.done for outcomes in history.hour()["sign"]]


def test_what_is_answered_is_in_the_minute_of_the_sample(sampler, counters):
    history = sampler()
    counters.answer("signing.sign", number=5)
    history.sample()
    counters.now += 59
    counters.answer("signing.sign", number=2)
    history.sample()
    counters.now += 1
    counters.answer("signing.sign")
    history.sample()
    history.sample()
    assert signed(history) == [0] * 58 + [7, 1]
    counters.now += 58 * 60
    assert signed(history) == [7, 1] + [0] * 58
    counters.now += 60
    assert signed(history) == [1] + [0] * 59


def test_every_process_is_told_the_same(sampler, counters):
    counters.answer("encryption.decrypt", 422, 3)
    sampler().sample()
    assert sampler("another").hour() == sampler().hour()
    assert sampler().hour()["decrypt"][-1] == Outcomes(refused=3)


def test_a_worker_that_goes_on_for_another_counts_nothing_twice(sampler, counters):
    counters.answer("signing.sign", number=5)
    sampler().sample()
    counters.answer("signing.sign")
    sampler().sample()
    assert signed(sampler())[-1] == 6


def test_the_counters_of_a_new_master_begin_at_zero(sampler, counters):
    counters.answer("signing.sign", number=5)
    sampler().sample()
    counters.counted.clear()
    counters.answer("signing.sign", number=9)
    sampler("next master").sample()
    assert signed(sampler())[-1] == 14


def test_two_masters_on_one_state_are_added(sampler, counters):
    other = Counters()
    for number in range(1, 4):
        counters.answer("signing.sign")
        other.answer("signing.sign", number=10)
        sampler().sample()
        sampler("other", other).sample()
        assert signed(sampler())[-1] == 11 * number


def test_a_counter_that_falls_back_is_no_negative_bar(sampler, counters):
    counters.answer("signing.sign", number=5)
    sampler().sample()
    counters.counted.clear()
    counters.answer("signing.sign", number=2)
    sampler().sample()
    assert signed(sampler())[-1] == 7


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"minutes":{"x":1}}', b"\xff"])
def test_a_file_that_is_torn_is_begun_anew(sampler, counters, path, content):
    history = sampler()
    counters.answer("signing.sign", number=5)
    history.sample()
    path.write_bytes(content)
    assert signed(history) == [0] * 60
    counters.answer("signing.sign")
    history.sample()
    assert signed(history)[-1] == 1


def test_while_it_cannot_be_written_nothing_is_lost(sampler, counters, monkeypatch):
    history = sampler()
    counters.answer("signing.sign", number=5)
    full = Mock(side_effect=OSError(errno.ENOSPC, "no space"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(OSError, match="no space"):
            history.sample()
    assert signed(history) == [0] * 60
    history.sample()
    assert signed(history)[-1] == 5


def test_one_process_of_a_master_samples_and_the_next_one_when_it_is_gone(sampler, counters, path):
    first, second, turn = sampler(), sampler(), path.with_name("turn")
    counters.answer("signing.sign", number=5)
    first._sample_in(turn)
    assert signed(second)[-1] == 5
    counters.answer("signing.sign", number=2)
    second._sample_in(turn)
    assert signed(second)[-1] == 5
    first._turn.close()  # as the kernel does
    second._sample_in(turn)
    assert signed(second)[-1] == 7


def test_that_it_cannot_be_written_is_logged_once(sampler, path, caplog):
    history = sampler()
    path.mkdir()
    for _ in range(2):
        history._sample_in(None)
    path.rmdir()
    history._sample_in(None)
    path.unlink()
    path.mkdir()
    history._sample_in(None)
    assert [record.message for record in caplog.records] == ["no history is kept now"] * 2


def test_a_clock_that_is_set_back_leaves_no_future(sampler, counters):
    counters.answer("signing.sign", number=5)
    sampler().sample()
    counters.now -= 3600
    counters.answer("signing.sign")
    sampler().sample()
    assert signed(sampler())[-1] == 1
    counters.now += 3600
    assert signed(sampler())[-1] == 0


def test_the_file_stays_small(sampler, counters, path):
    for number in range(200):
        counters.now += 60
        counters.answer("signing.sign", 200 + number % 3 * 150, 10**9)
        sampler(f"/dev/shm/jose-hsm-figures-0-0123456789abcdef-{number}").sample()
    assert path.stat().st_size < 32_768


def test_every_request_is_of_a_kind_apart_from_looking():
    def kinds(*endpoints: str) -> list[str]:
        return [kind for endpoint in endpoints for kind in tally([Count(endpoint, 200, 1)], KINDS)]

    assert kinds("signing.verify", "encryption.encrypt") == ["verify", "encrypt"]
    assert kinds("keys.unwrap", "keys.destroy", "grants.grant") == ["make", "manage", "manage"]
    assert kinds("none", "jwks.jwks", "batch.answer", "capabilities.show") == ["other"] * 4
    assert kinds("health.metrics", "status.show", "docs.static") == []
