"""Health is told from what is known: without the token, without waiting, to everybody."""

import contextlib
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import requests

from app.errors import RegistryCause, RegistryUnavailable
from app.registry import watch
from app.service import service_of
from hsm import Cause, Hsm, Phase, State
from scripts.throwaway import make_token
from tests.shared.api import Api
from tests.shared.waiting import CHANGE, STATE, until


def get(url: str, path: str) -> requests.Response:
    return requests.get(url + path, timeout=STATE.seconds)


def eventually(url: str, status: int) -> requests.Response:
    """Ask /health/ready until it answers ``status``."""
    deadline = time.monotonic() + CHANGE.seconds
    while (response := get(url, "/health/ready")).status_code != status:
        assert time.monotonic() < deadline, response.text
        time.sleep(0.2)
    return response


def test_a_service_with_its_token_is_live_and_ready(server):
    Api.over_http(server).create(kty="oct", alg="HS256")  # both workers have tried by then
    assert get(server, "/health/live").json() == {"status": "live"}
    answer = eventually(server, 200).json()
    assert (answer["state"], answer["epoch"] >= 1) == ("ready", True)


def test_a_service_with_a_wrong_pin_is_live_and_says_why_it_is_not_ready(serve, tmp_path):
    environment = make_token(tmp_path / "state")
    Path(environment["JOSE_HSM_PIN_FILE"]).write_text("wrong-4711")
    with serve(environment, workers=1) as url:
        assert get(url, "/health/live").status_code == 200
        deadline = time.monotonic() + CHANGE.seconds
        while "pin" not in (answer := get(url, "/health/ready")).text.lower():
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.2)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert answer.json().keys() == {"error", "description"}
        phase, cause, reason = answer.json()["description"].split(": ", 2)
        assert (phase, cause, bool(reason)) == ("unavailable", "pin", True)
        assert "4711" not in answer.text
        until(lambda: "\njose_hsm_pin_refused 1.0\n" in get(url, "/metrics").text)


@pytest.fixture
def client(application):
    return application.test_client()


def test_what_is_told_is_the_state_of_the_token(application, client, monkeypatch):
    class Told:
        state = State(Phase.STARTING, Cause.STARTING, "the token is being opened")

        def __getattr__(self, name: str) -> None:
            pytest.fail(f"the token was asked: {name}")

    service = replace(service_of(application), hsm=cast("Hsm", Told()))
    monkeypatch.setitem(application.extensions, "jose_hsm", service)
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json) == (
        503,
        {"error": "unavailable", "description": "starting: starting: the token is being opened"},
    )


def test_a_registry_that_nobody_has_asked_yet_is_not_called_lost(application, client, monkeypatch):
    service = replace(service_of(application), watch=watch.Watch(lambda: None))
    monkeypatch.setitem(application.extensions, "jose_hsm", service)
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json["description"]) == (
        503,
        "starting: starting: the registry has not been asked yet",
    )


PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text"


@pytest.mark.parametrize(
    ("accepted", "given"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/plain;version=0.0.4;q=0.3,*/*;q=0.2", PLAIN),
        (f"{OPEN};version=1.0.0;q=0.5,text/plain", f"{OPEN}; version=1.0.0"),
        (OPEN, f"{OPEN}; version=1.0.0"),
        (f"{OPEN}; version=x, {OPEN}; version=1.0.0 ;q=0.5", f"{OPEN}; version=1.0.0"),
        *(
            (f"{name};version={version}", PLAIN)
            for name in ("text/plain", OPEN)
            for version in ("x", "", ".", "1.x", "2.x", "1..0", '"1.0.0"', "\xe9", "1" * 5000, "-1")
        ),
    ],
)
def test_figures_are_given_in_a_format_that_is_accepted_or_else_in_plain_text(
    client, accepted, given
):
    answer = client.get("/metrics", headers={"Accept": accepted})
    assert (answer.status_code, answer.content_type.startswith(given)) == (200, True)


def test_a_registry_that_is_lost_is_told_and_that_it_is_back(monkeypatch):
    monkeypatch.setattr(watch, "_PAUSE_SECONDS", 0.01)
    is_there = threading.Event()

    def ask() -> None:
        if not is_there.is_set():
            raise RegistryUnavailable

    watched = watch.Watch(ask)
    assert watched.cause == "starting"
    watched.start()
    until(lambda: watched.cause == "registry")
    is_there.set()
    deadline = time.monotonic() + CHANGE.seconds
    while watched.cause:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    is_there.clear()
    while not watched.cause:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_registry_is_asked_again_as_soon_as_the_token_may_say_whose_it_is(monkeypatch):
    monkeypatch.setattr(watch, "_PAUSE_SECONDS", 3600)
    answers = [RegistryCause.UNCONFIRMED, RegistryCause.UNCONFIRMED]

    def ask() -> None:
        if answers:
            raise RegistryUnavailable(answers.pop())

    watched = watch.Watch(ask)
    watched.start()
    until(lambda: watched.cause is None)


def test_a_registry_that_does_not_come_back_to_us_is_lost(monkeypatch):
    monkeypatch.setattr(watch, "_PATIENCE_SECONDS", 0.05)
    go_on = threading.Event()
    watched = watch.Watch(lambda: go_on.wait(20))
    watched._answered = None
    watched.start()
    deadline = time.monotonic() + CHANGE.seconds
    while not watched.cause:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    go_on.set()


def test_nobody_waits_for_the_registry_to_know_that_it_is_lost(serve, tmp_path):
    environment = make_token(tmp_path / "state")
    with serve(environment, workers=1) as url:
        eventually(url, 200)
        with contextlib.closing(sqlite3.connect(tmp_path / "state" / "registry.db")) as registry:
            registry.execute("ALTER TABLE keys RENAME TO gone")
            answer = eventually(url, 503)
            assert answer.json()["description"].startswith("unavailable: schema: ")
            registry.execute("ALTER TABLE gone RENAME TO keys")
        eventually(url, 200)
