"""What is done now and then goes on after an error, and ends with the process or before."""

import subprocess
import sys
import threading
from itertools import count
from queue import Queue
from typing import Any

import pytest

from hsm import Periodic
from scripts.throwaway import ROOT

NEVER_SECONDS = 3600
PATIENCE_SECONDS = 60


@pytest.fixture
def done() -> "Queue[Any]":
    return Queue()


def test_work_is_done_again_and_again_though_it_fails(done, caplog):
    numbers = count(1)

    def work() -> None:
        number = next(numbers)
        done.put(number)
        if number == 2:
            raise RuntimeError("now and then")

    periodic = Periodic("working", work, pause_seconds=0.001)
    periodic.start()
    assert [done.get(timeout=PATIENCE_SECONDS) for _ in range(4)] == [1, 2, 3, 4]
    periodic.stop()
    messages = [one.message for one in caplog.records if one.message.startswith("working ")]
    assert messages == ["working has failed, and goes on"]


def test_the_first_time_is_after_a_pause_or_at_once(done):
    later = Periodic("later", lambda: done.put("later"), pause_seconds=NEVER_SECONDS)
    now = Periodic("now", lambda: done.put("now"), pause_seconds=NEVER_SECONDS, at_once=True)
    for periodic in (later, now):
        periodic.start()
    assert done.get(timeout=PATIENCE_SECONDS) == "now"
    for periodic in (later, now):
        periodic.stop()
    assert done.empty()


def test_what_is_done_at_the_end_is_done_once_more(done):
    last = Periodic("last", lambda: done.put("last"), pause_seconds=NEVER_SECONDS, at_end=True)
    last.start()
    last.stop()
    assert done.get(timeout=PATIENCE_SECONDS) == "last"
    assert done.empty()


def test_to_stop_is_to_wait_for_what_is_being_done(done, monkeypatch):
    monkeypatch.setattr("hsm.periodic._STOP_SECONDS", PATIENCE_SECONDS)
    begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(PATIENCE_SECONDS)
        done.put("ended")

    periodic = Periodic("working", work, pause_seconds=NEVER_SECONDS, at_once=True)
    periodic.start()
    assert begun.wait(PATIENCE_SECONDS)
    threading.Timer(0.01, may_end.set).start()
    periodic.stop()
    assert done.get_nowait() == "ended"


ENDING = """
import atexit, threading
from hsm import Periodic

begun, ending = threading.Event(), threading.Event()

def work():
    begun.set()
    ending.wait()
    print("work has ended", flush=True)

atexit.register(print, "the process ends", flush=True)
Periodic("working", work, pause_seconds=3600, at_once=True).start()
atexit.register(ending.set)
begun.wait()
"""


def test_it_stops_when_the_process_ends():
    done = subprocess.run(
        [sys.executable, "-c", ENDING], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["work has ended", "the process ends"]


def test_jitter_only_shortens_a_pause():
    pauses = {Periodic("x", print, pause_seconds=60, is_jittered=True)._pause() for _ in range(100)}
    assert len(pauses) > 1
    assert all(30 <= pause <= 60 for pause in pauses)
