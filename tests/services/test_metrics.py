"""Figures count what happened in all workers, and what they keep does not grow with workers."""

import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from scripts.throwaway import Server, make_token
from scripts.workers import is_gone, kill, workers_of
from tests.shared.api import Api
from tests.shared.forks import server
from tests.shared.waiting import STATE, until

USES = 12
SESSIONS = 2
SELDOM = 0.2
"""Seconds between two looks: to add up the figures of all workers takes a tenth as long."""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service of its own: its figures are those of this file."""
    settings = make_token(tmp_path_factory.mktemp("figures") / "state")
    with server(settings | {"JOSE_HSM_SESSIONS": str(SESSIONS)}) as running:
        yield running


def metrics(url: str, name: str = "") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the figures of which ``name`` is a part."""
    response = requests.get(url + "/metrics", timeout=STATE.seconds)
    text = response.text if response.status_code == 200 else ""  # 503: a worker is starting again
    found = "".join(line for line in text.splitlines(keepends=True) if name in line)
    return {
        (sample.name.removeprefix("jose_hsm_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(found)
        for sample in family.samples
    }


def value(url: str, name: str, **labels: str) -> float:
    return metrics(url, name).get((name, frozenset(labels.items())), 0.0)


def eventually(url: str, expected: float, name: str, **labels: str) -> None:
    """Wait for a figure: each worker writes what it has counted once a second, one by one."""
    until(lambda: value(url, name, **labels) == expected, pause_seconds=SELDOM)


def at_least(url: str, expected: float, name: str, **labels: str) -> None:
    until(lambda: value(url, name, **labels) >= expected, pause_seconds=SELDOM)


def test_figures_of_alerts_are_there_before_their_first_event(started):
    found = metrics(started.url)
    for name, labels in {
        "requests_total": {"endpoint": "signing.sign", "status": "500"},
        "batch_requests_total": {"endpoint": "encryption.decrypt", "status": "422"},
        "audit_lines_total": {"outcome": "failed"},
        "token_losses_total": {"cause": "lost"},
        "log_lines_dropped_total": {},
        "broken_seals_total": {},
    }.items():
        assert found[name, frozenset(labels.items())] == 0


def test_requests_of_all_workers_are_counted_by_endpoint_and_status(environment):
    with server(environment) as started:  # others count, too
        _require_all_counted(started)


def _require_all_counted(started: Server) -> None:
    kid = Api.over_http(started.url).create(kty="oct", alg="HS256")["kid"]
    for _ in range(USES):  # a new connection each time, so that both workers have some
        Api.over_http(started.url).ok("/mac", {"kid": kid, "alg": "HS256", "data": ""})
    Api.over_http(started.url).request("GET", f"/secret-path-{kid}")
    eventually(started.url, USES, "requests_total", endpoint="signing.mac", status="200")
    eventually(started.url, 1, "requests_total", endpoint="keys.create", status="200")
    eventually(started.url, 1, "requests_total", endpoint="none", status="404")
    eventually(started.url, USES, "request_seconds_count", endpoint="signing.mac")
    eventually(started.url, USES + 1, "audit_lines_total", outcome="written")
    at_least(started.url, USES, "registry_seconds_count")
    at_least(started.url, USES, "session_wait_seconds_count")
    at_least(started.url, USES, "pkcs11_call_seconds_count", function="C_Sign")
    assert value(started.url, "log_lines_dropped_total") == 0


def test_errors_of_the_token_are_counted_by_function_and_code(started):
    api = Api.over_http(started.url)
    kid = api.create(kty="oct", alg="A128GCM")["kid"]
    jwe = api.ok("/encrypt", {"kid": kid, "alg": "dir", "enc": "A128GCM", "data": ""})
    jwe["tag"] = "A" * 22
    assert api.post("/decrypt", jwe).status == 422
    codes = until(
        lambda: {
            dict(labels)["code"]
            for name, labels in metrics(started.url)
            if name == "pkcs11_errors_total" and ("function", "C_Decrypt") in labels
        }
    )
    assert all(re.fullmatch(r"(CKR_)?\w+", code) for code in codes), codes


def test_no_figure_says_why_a_decryption_failed(started):
    api = Api.over_http(started.url)
    kid = api.create(kty="RSA", alg="RSA-OAEP")["kid"]
    jwe = api.ok("/encrypt", {"kid": kid, "alg": "RSA-OAEP", "enc": "A128CBC-HS256", "data": ""})

    def of_the_token() -> Any:
        return {
            (name, labels): found
            for (name, labels), found in metrics(started.url, "pkcs11").items()
            if name == "pkcs11_errors_total" or ("function", "C_UnwrapKey") in labels
        }

    assert api.post("/decrypt", jwe).status == 200
    failed = value(started.url, "requests_total", endpoint="encryption.decrypt", status="422")
    at_least(started.url, 1, "pkcs11_call_seconds_count", function="C_UnwrapKey")
    before = of_the_token()
    for part, changed in (("tag", "A" * 22), ("encrypted_key", "A" * 342)):
        assert api.post("/decrypt", jwe | {part: changed}).status == 422
    of_those = {"endpoint": "encryption.decrypt", "status": "422"}
    eventually(started.url, failed + 2, "requests_total", **of_those)
    assert of_the_token() == before


def test_no_label_names_a_key_or_a_principal(started):
    kid = Api.over_http(started.url).create(kty="oct", alg="HS256")["kid"]
    Api.over_http(started.url).delete(kid)
    text = requests.get(started.url + "/metrics", timeout=STATE.seconds).text
    assert kid not in text
    assert "anonymous" not in text
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}", text)


def test_every_live_worker_and_only_those_say_that_they_have_their_token(started):
    def up() -> set[frozenset[tuple[str, str]]]:
        found = metrics(started.url, "token_up")
        return {labels for (name, labels), on in found.items() if name == "token_up" and on}

    until(lambda: len(up()) == 2, pause_seconds=SELDOM)
    eventually(
        started.url, 2 * SESSIONS, "sessions", state="idle"
    )  # the canary's is lent, at times
    master = started.process.pid
    before = set(workers_of(master))
    assert all(map(kill, before))
    until(lambda: len(set(workers_of(master)) - before) == 2)
    until(lambda: len(up()) == 2, pause_seconds=SELDOM)
    eventually(started.url, 2 * SESSIONS, "sessions", state="idle")


def test_what_there_is_and_what_expires_next_is_told(started):
    def days(of: str) -> float:
        return value(started.url, "days_until_expiry", of=of)

    api, ec = Api.over_http(started.url), {"kty": "EC", "state": "active"}
    assert math.isinf(days("key"))
    assert math.isinf(days("api_token"))
    at = datetime.now(UTC) + timedelta(days=10)
    kid = api.create(kty="EC", crv="P-256", expires=f"{at:%Y-%m-%dT%H:%M:%SZ}")["kid"]
    eventually(started.url, 1, "keys", **ec)
    until(lambda: 9 < days("key") <= 10, pause_seconds=SELDOM)
    assert api.delete(kid).status == 204
    eventually(started.url, 0, "keys", **ec)
    until(lambda: math.isinf(days("key")), pause_seconds=SELDOM)


def test_the_history_goes_on_when_the_worker_that_keeps_it_dies(started):
    def computed() -> int:
        page = requests.get(started.url + "/status", timeout=STATE.seconds)
        found = re.search(r"<b>MAC</b> (\d+) done", page.text)
        return int(found[1]) if found else 0  # 503: a worker is starting again

    api = Api.over_http(started.url)
    kid = api.create(kty="oct", alg="HS256")["kid"]
    before = int(value(started.url, "requests_total", endpoint="signing.mac", status="200"))
    until(lambda: computed() == before, pause_seconds=SELDOM)
    body = {"kid": kid, "alg": "HS256", "data": ""}
    for number, worker in enumerate(workers_of(started.process.pid), start=1):
        assert kill(worker)
        until(partial(is_gone, worker))
        until(lambda: Api.over_http(started.url).post("/mac", body).status == 200)
        counted = partial(lambda done: computed() == done, before + number)
        until(counted, pause_seconds=SELDOM)


@pytest.fixture
def of(environment: dict[str, str]) -> Callable[[int], list[Path]]:
    """Return where the processes of a master keep their figures."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else Path(environment["JOSE_HSM_STATE_DIR"])
    return lambda master: list(parent.glob(f"jose-hsm-figures-*-{master}-*"))


def test_workers_come_back_after_the_place_was_removed(environment, of):
    with server(environment, workers=1) as running:
        (place,) = of(running.process.pid)
        shutil.rmtree(place)
        (worker,) = workers_of(running.process.pid)
        assert kill(worker)
        until(partial(is_gone, worker))
        until(lambda: 1 in metrics(running.url, "token_up").values())
        assert of(running.process.pid) == [place]
        assert place.stat().st_mode & 0o777 == 0o700


def test_figures_outlive_the_place_where_they_are_kept(environment, of):
    with server(environment) as running:
        for _ in range(USES):
            Api.over_http(running.url).request("GET", "/unknown")
        eventually(running.url, USES, "requests_total", endpoint="none", status="404")
        (place,) = of(running.process.pid)
        shutil.rmtree(place)
        for _ in range(USES):
            answer = requests.get(running.url + "/metrics", timeout=STATE.seconds)
            assert answer.status_code == 200
        eventually(running.url, USES, "requests_total", endpoint="none", status="404")
        until(lambda: list(metrics(running.url, "token_up").values()) == [1, 1])
        assert place.stat().st_mode & 0o777 == 0o700


def test_a_file_that_a_worker_has_only_just_made_is_passed_by(environment, of):
    with server(environment, workers=1) as running:
        (place,) = of(running.process.pid)
        (place / "gauge_liveall_9.db").touch()
        answer = requests.get(running.url + "/metrics", timeout=STATE.seconds)
        assert answer.status_code == 200


def test_the_files_are_in_a_private_place_that_ends_with_the_master(environment, of):
    with server(environment, workers=1) as running:
        (place,) = of(running.process.pid)
        assert place.stat().st_mode & 0o777 == 0o700
    assert of(running.process.pid) == []
    with server(environment, workers=1) as killed:
        workers = workers_of(killed.process.pid)
        killed.process.kill()
        killed.process.wait()
        for worker in workers:  # they notice, and write no figures any more
            until(partial(is_gone, worker))
    with server(environment, workers=1):
        assert of(killed.process.pid) == []
