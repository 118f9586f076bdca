"""Rotate key sets while workers are killed, and look whether any verifier notices.

    python -m scripts.trials.rotation --minutes 10

Two services share one PostgreSQL and one throw-away token, and every three seconds one of their
workers is ended by SIGKILL. Signers sign by the name of a key set, and verifiers keep the JWKS for
exactly as long as it says and never ask for an unknown kid. Prints a table; exits with 1 if a
signature was not verified, if a version signed too soon, or if a period had not one rotation.
"""

import argparse
import http.client
import itertools
import json
import queue
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from scripts.throwaway import Server, make_token, server
from scripts.trials.kill_workers import PATIENCE_SECONDS, Client, Findings
from scripts.workers import kill, workers_of
from tests.shared.postgresql import running as running_postgresql

EVERY: Final = timedelta(seconds=20)
AHEAD: Final = timedelta(seconds=6)
MAX_AGE_SECONDS: Final = 5
KILL_SECONDS: Final = 3.0
SIGNERS: Final = 10
VERIFIERS: Final = 10
_POLICY: Final = {"every": "PT20S", "publish_ahead": "PT6S", "retain": "PT20S"}
_SIGNING: Final = {"kty": "EC", "crv": "P-256", "alg": "ES256", "rotation": _POLICY}
_SEALING: Final = {"kty": "oct", "alg": "A256GCM", "rotation": _POLICY}
_SIGN: Final = {"keyset": "orders", "alg": "ES256", "data": "AAAA", "serialization": "compact"}
_SEAL: Final = {"keyset": "sealed", "alg": "dir", "enc": "A256GCM", "data": "AAAA"}
_PAUSE_SECONDS: Final = 0.2  # of a signer: what is looked for is no question of load
_INTERRUPTED: Final = (OSError, http.client.HTTPException)


class Seen:
    """How often signers and verifiers have met what, and the failures in words."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._numbers: Final = Counter[str]()
        self.failures: Final[list[str]] = []

    def note(self, what: str) -> None:
        """Count it once more."""
        with self._lock:
            self._numbers[what] += 1

    def number(self, what: str) -> int:
        """Return how often it was met."""
        return self._numbers[what]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Two services, and what is to be verified; ``over`` ends it."""

    servers: Sequence[Server]
    logs: Sequence[Path]
    seen: Seen = field(default_factory=Seen)
    over: threading.Event = field(default_factory=threading.Event)
    signatures: "queue.SimpleQueue[str]" = field(default_factory=queue.SimpleQueue)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the body of an answer of either service, as soon as one answers 200."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                status, answer = _ask(random.choice(self.servers), method, path, body)
            except _INTERRUPTED:
                self.seen.note("cut off")
                continue
            if status == HTTPStatus.OK:
                return answer
            if status != HTTPStatus.SERVICE_UNAVAILABLE:
                self.seen.note("unexpected")
            time.sleep(_PAUSE_SECONDS)
        sys.exit(f"nobody has answered {method} {path} for a minute")

    def sign(self) -> None:
        """Sign by the name of the set until it is over."""
        clients = [Client(one) for one in self.servers]
        while not self.over.wait(_PAUSE_SECONDS):
            try:
                status, answer = random.choice(clients).post("/sign", _SIGN)
            except _INTERRUPTED:
                self.seen.note("cut off")
                continue
            if status == HTTPStatus.OK:
                self.seen.note("signed")
                self.signatures.put(answer["jws"])
            elif status != HTTPStatus.SERVICE_UNAVAILABLE:
                self.seen.note("unexpected")
        for client in clients:
            client.close()

    def verify(self) -> None:
        """Verify what comes, by a JWKS that is as old as it may be."""
        keys, until = KeySet([]), 0.0
        while not (self.over.is_set() and self.signatures.empty()):
            try:
                compact = self.signatures.get(timeout=_PAUSE_SECONDS)
            except queue.Empty:
                continue
            if time.monotonic() >= until:
                asked_at = time.monotonic()
                keys = KeySet.import_key_set(self.ask("GET", "/.well-known/jwks.json"))
                until = asked_at + MAX_AGE_SECONDS
            try:
                jws.deserialize_compact(compact, keys, algorithms=["ES256"])
                self.seen.note("verified")
            except (JoseError, ValueError) as error:
                self.seen.failures.append(f"{type(error).__name__}: {compact}")

    def kill(self) -> None:
        """End a worker of one of the services."""
        master = random.choice(self.servers).process.pid
        if workers := workers_of(master):
            kill(random.choice(workers))

    def lines(self) -> Iterator[dict[str, Any]]:
        """Give the lines of both audit logs; one may be torn by a kill."""
        for log in self.logs:
            for line in log.read_text("utf-8").splitlines():
                try:
                    yield json.loads(line)
                except ValueError:
                    continue


def _ask(
    running: Server, method: str, path: str, body: Mapping[str, Any] | None
) -> tuple[int, Any]:
    address = running.url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS)
    try:
        prefix = "" if path.startswith("/.") else "/v1/crypto"
        text = None if body is None else json.dumps(body)
        connection.request(method, prefix + path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@contextmanager
def _serving() -> Iterator[Trial]:
    """Serve twice, with state directories and audit logs of their own."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jose-hsm-")))
        cluster = stack.enter_context(running_postgresql())
        own = make_token(directory / "a") | {
            "JOSE_HSM_DATABASE_URL": cluster.registry(),
            "JOSE_HSM_JWKS_MAX_AGE": str(MAX_AGE_SECONDS),
        }
        (directory / "b").mkdir(mode=0o700)
        logs = [directory / "a.log", directory / "b.log"]
        servers = [
            stack.enter_context(
                server(
                    own
                    | {
                        "JOSE_HSM_STATE_DIR": str(directory / name),
                        "JOSE_HSM_AUDIT_LOG": str(log),
                    }
                )
            )
            for name, log in zip("ab", logs, strict=True)
        ]
        yield Trial(servers=servers, logs=logs)


def _under_fire(trial: Trial, seconds: float) -> int:
    """Sign and verify for ``seconds``; return how many workers were killed meanwhile."""
    roles: list[Callable[[], None]] = [trial.sign] * SIGNERS + [trial.verify] * VERIFIERS
    threads = [threading.Thread(target=role) for role in roles]
    for thread in threads:
        thread.start()
    kills, deadline = 0, time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            time.sleep(KILL_SECONDS)
            trial.kill()
            kills += 1
    finally:
        trial.over.set()
        for thread in threads:
            thread.join()
    return kills


def _too_soon(lines: Sequence[Mapping[str, Any]]) -> int:
    """Count signatures by versions that had been published for less than they have to be."""
    published = {
        line["version"]: datetime.fromisoformat(line["time"])
        for line in lines
        if line.get("transition") == "published"
    }
    signed = (line for line in lines if line["endpoint"] == "signing.sign")
    return sum(
        datetime.fromisoformat(line["time"]) - published[line["kid"]] < AHEAD
        for line in signed
        if line["kid"] in published
    )


def _irregular(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[int, int]:
    """Return how many rotations a set had, and how many periods had not exactly one.

    A period may be a little longer than it is to be: a version signs ``AHEAD`` after its line.
    """
    steps = [line for line in lines if line.get("keyset") == name and "transition" in line]
    planned = sorted(
        datetime.fromisoformat(line["rotates_at"])
        for line in steps
        if line["transition"] == "rotated"
    )
    periods = [after - before for before, after in itertools.pairwise(planned)]
    numbers = [line["step"] for line in steps]
    twice = len(numbers) - len(set(numbers))
    return len(planned), twice + sum(not EVERY <= period < 2 * EVERY for period in periods)


def main() -> int:
    """Run the experiment; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    seconds = 60 * parser.parse_args().minutes
    findings = Findings()
    with _serving() as trial:
        for name, members in (("orders", _SIGNING), ("sealed", _SEALING)):
            trial.ask("PUT", f"/keysets/{name}", members)
        sealed = trial.ask("POST", "/encrypt", _SEAL)
        findings.show("workers killed", _under_fire(trial, seconds))
        opened = trial.ask("POST", "/decrypt", sealed)
        lines = list(trial.lines())
    seen = trial.seen
    signed, verified = seen.number("signed"), seen.number("verified")
    findings.show("requests cut off", seen.number("cut off"))
    findings.show("signatures", signed)
    findings.show("signatures verified", verified)
    findings.show("signatures that were not", signed - verified, must_be_0=True)
    unexpected = seen.number("unexpected")
    findings.show("answers that were neither 200 nor 503", unexpected, must_be_0=True)
    findings.show("signatures by a version too new", _too_soon(lines), must_be_0=True)
    for name in ("orders", "sealed"):
        rotations, irregular = _irregular(lines, name)
        findings.show(f"rotations of {name}", rotations)
        findings.show("periods without one, or with more", irregular, must_be_0=True)
        missing = max(0, int(seconds / EVERY.seconds) - 1 - rotations)
        findings.show("rotations missing", missing, must_be_0=True)
    findings.show(
        "messages for a first version lost", int(opened["data"] != "AAAA"), must_be_0=True
    )
    for line in seen.failures[:5]:
        print(line)
    print("WRONG: see the lines marked" if findings.status else "OK: nobody has noticed")
    return findings.status


if __name__ == "__main__":
    sys.exit(main())
