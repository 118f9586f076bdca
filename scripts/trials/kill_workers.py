"""Kill workers while keys are being created, and look at what is left.

    python -m scripts.trials.kill_workers --kills 50

Serves a throw-away token. Clients create keys of mixed kinds while one worker after the other is
ended by SIGKILL. Afterwards every kid that was ever returned has to work, whatever else is left has
to be out of reach, and ``jose-hsm reconcile`` has to leave the token with exactly the registry's
keys. Prints a table; exits with 1 if anything of that does not hold.
"""

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from app.config import Config
from app.host import host_name
from app.registry import Registry
from hsm import Hsm, HsmError
from scripts.throwaway import Server, make_token
from scripts.throwaway import server as running
from scripts.trials import uses
from scripts.workers import kill, workers_of

BIN: Final = Path(sys.executable).parent
CLIENTS: Final = 4
PATIENCE_SECONDS: Final = 60
_DATA: Final = "AA"
KINDS: Final[tuple[Mapping[str, str], ...]] = (
    {"kty": "oct", "alg": "A256GCM"},
    {"kty": "oct", "alg": "A128CBC-HS256"},
    {"kty": "oct", "alg": "HS256"},
    {"kty": "EC", "crv": "P-256", "alg": "ES256"},
    {"kty": "OKP", "alg": "EdDSA"},
    {"kty": "RSA", "alg": "PS256"},
    {"kty": "RSA", "alg": "RSA-OAEP"},
)


class Client:
    """Calls the service, again and again while nobody answers."""

    def __init__(self, server: Server) -> None:
        address = server.url.removeprefix("http://")
        self._connection = http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS)

    def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        """Return status and body; raise ``OSError`` or ``HTTPException`` if a worker died."""
        try:
            self._connection.request(
                "POST",
                f"/v1/crypto{path}",
                json.dumps(body),
                {"Content-Type": "application/json"},
            )
            response = self._connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def close(self) -> None:
        """Hang up; the next call may get another worker."""
        self._connection.close()


@dataclass
class Returned:
    """Keys that clients were told of, and how requests ended."""

    keys: list[Mapping[str, Any]] = field(default_factory=list)
    unexpected: set[int] = field(default_factory=set)
    broken: int = 0


class Findings:
    """Lines of the table, and which of them must be 0."""

    def __init__(self) -> None:
        self._violated = False

    def show(self, title: str, number: int, *, must_be_0: bool = False) -> None:
        """Print a line."""
        is_bad = must_be_0 and number > 0
        self._violated |= is_bad
        print(f"{title:<58}{number:>7}{'  VIOLATION' if is_bad else ''}", flush=True)

    @property
    def status(self) -> int:
        """The exit status."""
        return int(self._violated)


def main() -> int:
    """Run the experiment; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    kills = parser.parse_args().kills
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory:
        environment = make_token(Path(directory) / "state")
        with running(environment) as server:
            returned = _create_under_fire(server, kills)
            token, registry = _look_inside(environment)
            findings.show("workers killed", kills)
            findings.show("requests cut off", returned.broken)
            findings.show("kids returned", len(returned.keys))
            findings.show(
                "answers that were neither 200 nor 503", len(returned.unexpected), must_be_0=True
            )
            _examine(findings, server, returned, token, registry)
            _reconcile(findings, environment, token, registry)
            findings.show("kids lost after reconcile", _lost(server, returned), must_be_0=True)
    print(
        "WRONG: see the lines marked" if findings.status else "OK: nothing lost, nothing left over"
    )
    return findings.status


def _kill_a_worker(server: Server) -> None:
    if workers := workers_of(server.process.pid):
        kill(random.choice(workers))


def _create_under_fire(server: Server, kills: int) -> Returned:
    returned = Returned()
    over = threading.Event()
    clients = [
        threading.Thread(target=_create, args=(server, returned, over)) for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    try:
        for _ in range(kills):
            _wait_for_more(returned)
            time.sleep(random.uniform(0, 0.1))
            _kill_a_worker(server)
    finally:
        over.set()
        for client in clients:
            client.join()
    return returned


def _wait_for_more(returned: Returned) -> None:
    """Return when keys are being created again."""
    seen, deadline = len(returned.keys), time.monotonic() + PATIENCE_SECONDS
    while len(returned.keys) <= seen:
        if time.monotonic() > deadline:
            sys.exit("no key was created for a minute")
        time.sleep(0.005)


def _create(server: Server, returned: Returned, over: threading.Event) -> None:
    client = Client(server)
    while not over.is_set():
        kind = random.choice(KINDS)
        try:
            status, body = client.post("/keys", kind)
        except (OSError, http.client.HTTPException):
            returned.broken += 1
            time.sleep(0.02)
            continue
        if status == HTTPStatus.OK:
            returned.keys.append(body)
        elif status != HTTPStatus.SERVICE_UNAVAILABLE:
            returned.unexpected.add(status)
    client.close()


def _look_inside(environment: Mapping[str, str]) -> tuple[Hsm, Registry]:
    """Open the token and the registry in this process."""
    os.environ["SOFTHSM2_CONF"] = environment["SOFTHSM2_CONF"]
    config = Config.from_env(environment)
    token = Hsm(config.hsm_settings)
    token.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while token.reason is not None:
        if time.monotonic() > deadline:
            sys.exit(f"the token did not open: {token.reason}")
        time.sleep(0.05)
    return token, Registry(config.registry_url, host=host_name(config.state_dir))


def _examine(
    findings: Findings, server: Server, returned: Returned, token: Hsm, registry: Registry
) -> None:
    inventory, specs = token.inventory(), registry.specs()
    rows = frozenset(specs)
    reachable = {kid for kid in rows if registry.find(kid)}
    halved, _ = token.differences(specs)
    findings.show("returned kids that do not work (lost)", _lost(server, returned), must_be_0=True)
    findings.show(
        "reachable keys without all their halves", len(reachable & halved), must_be_0=True
    )
    known = {UUID(key["kid"]) for key in returned.keys}
    findings.show("complete keys whose answer was cut off", len(reachable - known))
    leftovers = (rows | inventory.keys()) - reachable
    findings.show("leftovers before reconcile: rows", len(rows - reachable))
    findings.show(
        "leftovers before reconcile: kids on the token", len(inventory.keys() - reachable)
    )
    found = sum(not _is_unreachable(server, kid) for kid in leftovers)
    findings.show("leftovers that a caller can reach", found, must_be_0=True)


def _reconcile(
    findings: Findings, environment: Mapping[str, str], token: Hsm, registry: Registry
) -> None:
    command = [str(BIN / "jose-hsm"), "reconcile"]
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=False
    )
    findings.show("exit status of jose-hsm reconcile", done.returncode, must_be_0=True)
    inventory, specs = token.inventory(), registry.specs()
    rows, (halved, _) = frozenset(specs), token.differences(specs)
    findings.show("after reconcile: kids in the registry", len(rows))
    findings.show("after reconcile: kids on the token", len(inventory))
    difference = len(rows ^ inventory.keys())
    findings.show("after reconcile: kids in one of them only", difference, must_be_0=True)
    findings.show("after reconcile: keys without all halves", len(halved), must_be_0=True)


def _lost(server: Server, returned: Returned) -> int:
    """Use every key, and check the result on another connection."""
    return sum(not _works(server, key) for key in returned.keys)


def _works(server: Server, key: Mapping[str, Any]) -> bool:
    made = _answer(server, *uses.protect(key, _DATA))
    if made is None:
        return False
    path, body, right = uses.check(key, _DATA, made)
    return bool(_answer(server, path, body) == right)


def _answer(server: Server, path: str, body: Mapping[str, Any]) -> Any:
    """Return the body of a 200, else ``None``."""
    status, answer = _ask(server, path, body)
    return answer if status == HTTPStatus.OK else None


def _is_unreachable(server: Server, kid: UUID) -> bool:
    return all(
        _ask(server, path, {"kid": str(kid), "alg": alg, "data": ""})[0] == HTTPStatus.NOT_FOUND
        for path, alg in (("/sign", "ES256"), ("/mac", "HS256"))
    )


def _ask(server: Server, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
    """Return status and body; asks again while the answer is 503, as of workers that wait."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        client = Client(server)
        status, answer = client.post(path, body)
        client.close()
        if status != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
            return status, answer
        time.sleep(0.1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except HsmError as error:
        sys.exit(f"the token failed: {error}")
