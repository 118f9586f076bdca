"""Figures count what happened in all workers, and what they keep does not grow with workers."""

import os
import re
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from scripts.throwaway import make_token
from scripts.workers import is_gone, workers_of
from tests.shared.api import Api
from tests.shared.forks import server
from tests.shared.waiting import CHANGE, STATE, until

USES = 12


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service of its own: its figures are those of this file."""
    with server(make_token(tmp_path_factory.mktemp("figures") / "state")) as running:
        yield running


def metrics(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    response = requests.get(url + "/metrics", timeout=STATE.seconds)
    text = response.text if response.status_code == 200 else ""  # 503: a worker is starting again
    return {
        (sample.name.removeprefix("jose_hsm_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(url: str, name: str, **labels: str) -> float:
    return metrics(url).get((name, frozenset(labels.items())), 0.0)


def eventually(url: str, expected: float, name: str, **labels: str) -> None:
    deadline = time.monotonic() + CHANGE.seconds
    while (found := value(url, name, **labels)) != expected:
        assert time.monotonic() < deadline, (found, metrics(url))
        time.sleep(0.1)


def test_figures_of_alerts_are_there_before_their_first_event(started):
    found = metrics(started.url)
    for name, labels in {
        "requests_total": {"endpoint": "signing.sign", "status": "500"},
        "batch_requests_total": {"endpoint": "encryption.decrypt", "status": "422"},
        "audit_lines_total": {"outcome": "failed"},
        "token_losses_total": {"cause": "lost"},
        "log_lines_dropped_total": {},
    }.items():
        assert found[name, frozenset(labels.items())] == 0


def test_requests_of_all_workers_are_counted_by_endpoint_and_status(started):
    kid = Api.over_http(started.url).create(kty="oct", alg="HS256")["kid"]
    for _ in range(USES):  # a new connection each time, so that both workers have some
        Api.over_http(started.url).ok("/mac", {"kid": kid, "alg": "HS256", "data": ""})
    Api.over_http(started.url).request("GET", f"/secret-path-{kid}")
    eventually(started.url, USES, "requests_total", endpoint="signing.mac", status="200")
    eventually(started.url, 1, "requests_total", endpoint="keys.create", status="200")
    eventually(started.url, 1, "requests_total", endpoint="none", status="404")
    eventually(started.url, USES, "request_seconds_count", endpoint="signing.mac")
    assert value(started.url, "audit_lines_total", outcome="written") == USES + 1
    assert value(started.url, "registry_seconds_count") >= USES
    assert value(started.url, "session_wait_seconds_count") >= USES
    assert value(started.url, "pkcs11_call_seconds_count", function="C_Sign") >= USES
    assert value(started.url, "log_lines_dropped_total") == 0


def test_errors_of_the_token_are_counted_by_function_and_code(started):
    api = Api.over_http(started.url)
    kid = api.create(kty="oct", alg="A128GCM")["kid"]
    jwe = api.ok("/encrypt", {"kid": kid, "alg": "dir", "enc": "A128GCM", "data": ""})
    jwe["tag"] = "A" * 22
    assert api.post("/decrypt", jwe).status == 422
    deadline = time.monotonic() + CHANGE.seconds
    while not (
        codes := {
            dict(labels)["code"]
            for (name, labels), _ in metrics(started.url).items()
            if name == "pkcs11_errors_total" and ("function", "C_Decrypt") in labels
        }
    ):
        assert time.monotonic() < deadline
    assert all(re.fullmatch(r"(CKR_)?\w+", code) for code in codes), codes


def test_no_label_names_a_key_or_a_principal(started):
    kid = Api.over_http(started.url).create(kty="oct", alg="HS256")["kid"]
    Api.over_http(started.url).delete(kid)
    text = requests.get(started.url + "/metrics", timeout=STATE.seconds).text
    assert kid not in text
    assert "anonymous" not in text
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}", text)


def test_every_live_worker_and_only_those_say_that_they_have_their_token(started):
    def up() -> set[frozenset[tuple[str, str]]]:
        found = metrics(started.url)
        return {labels for (name, labels), on in found.items() if name == "token_up" and on}

    def wait(number: int) -> None:
        deadline = time.monotonic() + CHANGE.seconds
        while len(up()) != number:
            assert time.monotonic() < deadline, up()
            time.sleep(0.1)

    wait(2)
    idle = value(started.url, "sessions", state="idle")
    master = started.process.pid
    for worker in workers_of(master):
        os.kill(worker, signal.SIGKILL)
        until(partial(is_gone, worker))
    wait(2)
    eventually(started.url, idle, "sessions", state="idle")


def test_the_history_goes_on_when_the_worker_that_keeps_it_dies(started):
    def computed() -> int:
        page = requests.get(started.url + "/status", timeout=STATE.seconds)
        found = re.search(r"<b>MAC</b> (\d+) done", page.text)
        return int(found[1]) if found else 0  # 503: a worker is starting again

    def wait(number: int) -> None:
        deadline = time.monotonic() + CHANGE.seconds
        while computed() != number:
            assert time.monotonic() < deadline, computed()
            time.sleep(0.2)

    api = Api.over_http(started.url)
    kid = api.create(kty="oct", alg="HS256")["kid"]
    before = int(value(started.url, "requests_total", endpoint="signing.mac", status="200"))
    wait(before)
    for number, worker in enumerate(workers_of(started.process.pid), start=1):
        os.kill(worker, signal.SIGKILL)
        until_served = Api.over_http(started.url)
        deadline = time.monotonic() + CHANGE.seconds
        while until_served.post("/mac", {"kid": kid, "alg": "HS256", "data": ""}).status != 200:
            assert time.monotonic() < deadline
        wait(before + number)


def test_the_files_are_in_a_private_place_that_ends_with_the_master(environment):
    def places() -> set[Path]:
        memory = Path("/dev/shm")
        parent = memory if os.access(memory, os.W_OK) else Path(environment["JOSE_HSM_STATE_DIR"])
        return set(parent.glob("jose-hsm-figures-*"))

    def of(master: int) -> list[Path]:
        return [place for place in places() if f"-{master}-" in place.name]

    with server(environment, workers=1) as running:
        (place,) = of(running.process.pid)
        assert place.stat().st_mode & 0o777 == 0o700
    assert of(running.process.pid) == []
    with server(environment, workers=1) as killed:
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait()
    with server(environment, workers=1):
        assert of(killed.process.pid) == []
