"""A token in a process of its own, which dies, comes back, stops and continues.

``p11-kit server`` puts SoftHSM there. It forwards few mechanisms: no AES-GCM, PSS or EdDSA.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.throwaway import LABEL, make_token
from scripts.tokens.relay import Relay
from scripts.workers import is_gone, workers_of
from tests.faults.service import protect, use
from tests.shared.command import jose_hsm
from tests.shared.waiting import GIVEN_UP, REFUSAL, START, until

CLIENTS = sorted(Path("/usr/lib").glob("*/pkcs11/p11-kit-client.so"))
KINDS = (
    {"kty": "oct", "alg": "HS256"},
    {"kty": "EC", "crv": "P-256", "alg": "ES256"},
    {"kty": "RSA", "alg": "RS256"},
)
CALL_SECONDS = "3"

pytestmark = pytest.mark.skipif(
    not CLIENTS or not shutil.which("p11-kit"), reason="p11-kit is not installed"
)


class Hsm:
    """The process that holds the token."""

    def __init__(self, settings: Mapping[str, str], path: Path) -> None:
        self._settings, self.socket = settings, path
        self._process: Any = None

    def start(self) -> None:
        """Start anew, at the same address."""
        self.socket.unlink(missing_ok=True)
        command: list[str | Path] = ["p11-kit", "server", "-f", "-n", self.socket]
        command += ["--provider", self._settings["JOSE_HSM_PKCS11_MODULE"], f"pkcs11:token={LABEL}"]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **self._settings},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(self._listens, within=START)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def kill(self) -> None:
        """End it, and what it has forked for each client."""
        forked = workers_of(self._process.pid)
        self.send(signal.SIGKILL)
        self._process.wait()
        until(lambda: all(map(is_gone, forked)))

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[tuple[Hsm, dict[str, str]]]:
    """A token behind a socket, and the settings that lead there."""
    settings = make_token(tmp_path / "state")
    hsm = Hsm(settings, tmp_path / "socket")
    hsm.start()
    yield (
        hsm,
        {
            **settings,
            "JOSE_HSM_PKCS11_MODULE": str(CLIENTS[-1]),
            "P11_KIT_SERVER_ADDRESS": f"unix:path={hsm.socket}",
        },
    )
    hsm.send(signal.SIGCONT)
    hsm.kill()


@pytest.fixture
def far(remote: tuple[Hsm, dict[str, str]], tmp_path: Path) -> Iterator[tuple[Hsm, dict[str, str]]]:
    """The same across a network."""
    hsm, settings = remote
    with Relay(tmp_path / "far", hsm.socket) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        address = f"unix:path={relay.server_address!s}"
        yield hsm, settings | {"P11_KIT_SERVER_ADDRESS": address}
        relay.shutdown()


@pytest.fixture(params=["remote", pytest.param("far", marks=pytest.mark.long)])
def apart(request: pytest.FixtureRequest) -> Any:
    """Both, one after the other."""
    return request.getfixturevalue(request.param)


@contextmanager
def using(service: Any) -> Iterator[set[int | None]]:
    """Use all keys of ``service`` meanwhile; give the set of statuses, ``None`` if cut off."""
    statuses: set[int | None] = set()
    over = threading.Event()

    def live(key: Any) -> None:
        while not over.is_set():
            try:
                statuses.add(use(service.api, key))
            except requests.RequestException:
                statuses.add(None)
            time.sleep(0.01)

    with ThreadPoolExecutor() as clients:
        lives = [clients.submit(live, key) for key in service.keys]
        try:
            yield statuses
        finally:
            over.set()
        for life in lives:
            life.result()


def test_a_token_that_is_killed_is_503_at_once_and_back_without_a_restart(serve_faulty, apart):
    hsm, settings = apart
    with serve_faulty(settings=settings) as service:
        for kind in KINDS:
            service.create(**kind)
        workers = service.workers
        for _ in range(2):
            hsm.kill()
            for key in service.keys:
                started = time.monotonic()
                assert protect(service.api, key).status == 503
                assert time.monotonic() - started < REFUSAL.seconds
            hsm.start()
            service.wait_until_ready()
        service.assert_sound()
        assert service.workers == workers


def test_a_token_that_starts_after_the_service_is_opened(serve_faulty, apart):
    hsm, settings = apart
    hsm.kill()
    with serve_faulty(settings=settings) as service:
        assert service.api.post("/keys", KINDS[0]).status == 503
        hsm.start()
        service.wait_until_ready()
        service.assert_sound()


def test_a_token_that_is_killed_while_a_pair_is_made_leaves_nothing(serve_faulty, apart):
    hsm, settings = apart
    with serve_faulty(settings=settings) as service, ThreadPoolExecutor() as clients:
        service.wait_until_ready(within=START)
        request = {"kty": "RSA", "bits": 4096, "alg": "RS256"}
        making = clients.submit(lambda: service.api.post("/keys", request))
        time.sleep(0.5)
        hsm.kill()
        answer = making.result()
        assert answer.status in {200, 503}  # 200 if it was quick
        hsm.start()
        service.wait_until_ready()
        assert "left alone): 0\n" in service.reconcile()
        service.assert_sound()


def test_a_token_that_stops_answering_is_given_up_and_found_again(serve_faulty, apart):
    hsm, settings = apart
    with serve_faulty(settings=settings, JOSE_HSM_CALL_SECONDS=CALL_SECONDS) as service:
        for kind in KINDS:
            service.create(**kind)
        with using(service) as statuses:
            hsm.send(signal.SIGSTOP)
            until(lambda: None in statuses, within=GIVEN_UP)  # the worker has ended
            hsm.send(signal.SIGCONT)
            service.expected_boots = service.faults.boots + 1
            service.wait_until_ready()
            assert statuses <= {None, 200, 503}
        service.assert_sound()


@pytest.mark.long
def test_the_doctor_says_what_is_proven_there_and_that_it_hangs(remote):
    hsm, settings = remote
    done = jose_hsm(settings, "doctor", "--quick")
    assert done.returncode == 0, done
    assert re.search(r"algorithm RS256 +ok +agrees with RFC 7515 A.2", done.stdout)
    hsm.send(signal.SIGSTOP)
    done = jose_hsm(settings | {"JOSE_HSM_GENERATION_SECONDS": "2"}, "doctor")
    assert done.returncode == 1
    assert re.search(r"module +failed +does not come back", done.stdout)
    assert "Is the HSM switched on" in done.stdout
