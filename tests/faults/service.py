"""A live service on a token of its own, with faults at hand, and what must hold after each."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from scripts.throwaway import Server, make_token
from scripts.trials import uses
from scripts.workers import is_gone, kill, workers_of
from tests.faults.control import Fault, Faults
from tests.shared.api import Answer, Api, b64u
from tests.shared.command import jose_hsm
from tests.shared.examples import rounds
from tests.shared.forks import server as running
from tests.shared.waiting import RECOVERY, START, Promise, until

CONFIGURATION: Final = "tests/faults/gunicorn.conf.py"
# On as many connections: then every worker has had its turn.
_CONSECUTIVE: Final = rounds(16, short=8)
_PAUSE_SECONDS: Final = 0.05
_PROBE: Final = {"kty": "oct", "alg": "HS256"}
_DATA: Final = b64u("what is protected")


class Service:
    """A gunicorn whose workers suffer what they are told to, and every key it has returned.

    ``bearer`` is the API token of whom they belong to, if callers need one.
    """

    def __init__(self, server: Server, faults: Faults, settings: Mapping[str, str], log: Path):
        self.url, self.process = server
        self.faults = faults
        self.settings = settings
        self.log = log
        self.state_dir = Path(settings["JOSE_HSM_STATE_DIR"])
        self.registry = self.state_dir / "registry.db"
        self.bearer: str | None = None
        self.keys: list[dict[str, Any]] = []
        self._number = self.expected_boots = int(settings["WEB_CONCURRENCY"])

    @property
    def api(self) -> Api:
        """The service on a new connection, which any worker may get."""
        return Api.over_http(self.url, bearer=self.bearer)

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers that live now."""
        return workers_of(self.process.pid)

    def inject(self, *faults: Fault) -> None:
        """Have these befall every worker from now on, in place of what did before."""
        self.faults.inject(*faults, workers=lambda: self.workers)

    def heal(self) -> None:
        """End all that was injected."""
        self.inject()

    def create(self, **members: Any) -> dict[str, Any]:
        """Create a key, which from now on has to live; wait for the token if need be."""
        deadline = time.monotonic() + START.seconds
        while (answer := self.api.post("/keys", members)).status == 503:
            assert time.monotonic() < deadline, answer
            time.sleep(_PAUSE_SECONDS)
        assert answer.status == 200, answer
        key: dict[str, Any] = answer.body
        self.keys.append(key)
        return key

    def destroy(self, key: Mapping[str, Any]) -> None:
        """Destroy a key, which from now on has to be gone."""
        self.keys = [each for each in self.keys if each["kid"] != key["kid"]]
        assert self.api.delete(key["kid"]).status == 204

    def wait_until_ready(self, *, within: Promise = RECOVERY) -> None:
        """Return when every worker does its work again; none may say anything but 503 before."""
        key = next(iter(self.keys), None) or self.create(**_PROBE)
        deadline, successes = time.monotonic() + within.seconds, 0
        while successes < (1 if self._number == 1 else _CONSECUTIVE) or not self._are_ready():
            status = use(self.api, key)
            assert status in {200, 503}, status
            successes = successes + 1 if status == 200 else 0
            assert time.monotonic() < deadline, f"not within {within.seconds} s: {within.what}"
            if not successes:
                time.sleep(_PAUSE_SECONDS)

    def _are_ready(self) -> bool:
        workers = self.workers
        return len(workers) == self._number and self.faults.are_ready(workers)

    def is_alive(self, key: Mapping[str, Any]) -> bool:
        """Use a key, which must work or be 503.

        It may be that once more after it has worked: a worker that has found its token lost just
        before that came back opens it anew a moment later.
        """
        status = use(self.api, key)
        assert status in {200, 503}, (status, key)
        return status == 200

    def kill_worker(self, pid: int) -> None:
        """End a worker by SIGKILL, unless it has just ended; its successor is expected."""
        self.expected_boots += kill(pid)

    def reload(self) -> None:
        """Replace all workers, and wait until the old ones are gone."""
        old = set(self.workers)
        self.process.send_signal(signal.SIGHUP)
        self.expected_boots += len(old)
        until(lambda: all(map(is_gone, old)) and len(self.workers) == len(old))

    def reconcile(self, *options: str) -> str:
        """Run ``jose-hsm reconcile``; return what it prints. It has to find nothing missing."""
        done = jose_hsm(self.settings, "reconcile", *options)
        assert "in the registry and not on the token: 0\n" in done.stdout, done
        return done.stdout

    def assert_sound(self) -> None:
        """What holds after every fault, whatever it was."""
        self.heal()
        self.wait_until_ready()
        for key in self.keys:
            until(partial(self.is_alive, key), within=RECOVERY)
        assert self.process.poll() is None
        until(lambda: len(self.workers) == self._number)
        assert self.faults.boots <= self.expected_boots, "workers were replaced that need not be"
        log = self.log.read_text()
        assert (self.state_dir / "pin").read_text().strip() not in log


@contextmanager
def serving(
    directory: Path, *, workers: int = 1, settings: Mapping[str, str] | None = None, **changes: Any
) -> Iterator[Service]:
    """Serve a new token (or that of ``settings``) for one ``with`` block."""
    faults = Faults(directory / "faults")
    environment = {
        **(settings or make_token(directory / "state")),
        **faults.environment,
        "PYTHONFAULTHANDLER": "1",  # a worker that crashes says where
        "WEB_CONCURRENCY": str(workers),
        **changes,
    }
    log = directory / "log"
    with (
        log.open("ab") as file,
        running(
            environment,
            workers=workers,
            configuration=CONFIGURATION,
            log=file,
            is_patient=False,
        ) as server,
    ):
        yield Service(server, faults, environment, log)


@contextmanager
def sound(service: Service) -> Iterator[Service]:
    """Give ``service`` for one ``with`` block, and see that nothing is left of its faults."""
    service.wait_until_ready(within=START)
    yield service
    service.assert_sound()


def protect(api: Api, key: Mapping[str, Any]) -> Answer:
    """Encrypt, sign or authenticate something with ``key``."""
    return api.post(*uses.protect(key, _DATA))


def check(api: Api, key: Mapping[str, Any], made: Mapping[str, Any]) -> Answer:
    """Decrypt or verify what ``protect`` has made; a 200 must be right."""
    path, body, right = uses.check(key, _DATA, made)
    answer = api.post(path, body)
    assert answer.status != 200 or answer.body == right, f"wrong: {answer}"
    return answer


def use(api: Api, key: Mapping[str, Any]) -> int:
    """Do both; return the first status that is not 200, or 200 if all is right."""
    made = protect(api, key)
    return check(api, key, made.body).status if made.status == 200 else made.status


def outcome(answer: Answer) -> str:
    """``ok``, or the error code."""
    return "ok" if 200 <= answer.status < 300 else str(answer.body["error"])
