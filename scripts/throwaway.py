"""A service with a token and a registry of its own, for tests and measurements."""

import os
import re
import secrets
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import IO, Final, NamedTuple, Protocol
from uuid import uuid4

import requests

from app.config import Config
from app.operator import serving
from app.registry import migrate
from scripts import tokens
from scripts.tokens import TOKENS
from scripts.workers import workers_of

ROOT: Final = Path(__file__).parent.parent
LABEL: Final = tokens.LABEL
CONFIGURATION: Final = str(serving.CONFIGURATION)
_READY_SECONDS: Final = 300  # a bound for what hangs: a busy machine may take long
_STOP_SECONDS: Final = 300


class Process(Protocol):
    """A process that was started, as ``subprocess.Popen`` has it."""

    @property
    def pid(self) -> int:
        """Its number."""

    def poll(self) -> int | None:
        """Return its exit status, ``None`` while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status when it has ended."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, if it runs."""

    def terminate(self) -> None:
        """Send SIGTERM, if it runs."""

    def kill(self) -> None:
        """Send SIGKILL, if it runs."""


Start = Callable[[Sequence[str], Mapping[str, str], IO[bytes] | None], Process]
"""Starts gunicorn with arguments and environment; the file gets what it prints."""


class Server(NamedTuple):
    """A running gunicorn: its base URL and its master process."""

    url: str
    process: Process


def make_registry(path: Path) -> str:
    """Make an empty registry in SQLite, and return its URL.

    It is as ``migrate`` makes one, which takes as long as five tokens do: so only the first is made
    that way, and the others are copies of it. As the first, each has a name of its own.
    """
    path.write_bytes(_migrated())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE identity SET id = ?", [str(uuid4())])
    return f"sqlite:///{path}"


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "registry.db")
        migrate(f"sqlite:///{path}")
        return path.read_bytes()


def _make_registry(settings: Mapping[str, str]) -> None:
    make_registry(Config.from_env(settings).state_dir / "registry.db")


def make_token(
    state_dir: Path,
    name: str = "softhsm",
    *,
    migrate: Callable[[Mapping[str, str]], None] = _make_registry,
) -> dict[str, str]:
    """Make a token of that make, and a registry; return the settings that name them.

    All is under ``state_dir``, which is made.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    pin = secrets.token_hex(TOKENS[name].pin_bytes)
    (state_dir / "pin").touch(mode=0o600)
    (state_dir / "pin").write_text(pin)
    settings = TOKENS[name].make(state_dir, pin) | {
        "JOSE_HSM_PIN_FILE": str(state_dir / "pin"),
        "JOSE_HSM_STATE_DIR": str(state_dir),
    }
    migrate(settings)
    return settings


def create_kek(settings: Mapping[str, str]) -> None:
    """Make a key-encryption key on the token of ``settings``, for keys that the registry keeps."""
    code = "import sys; from app.operator.cli import main; sys.exit(main(['kek', 'create']))"
    environment = {**os.environ, **settings}
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)


def start(
    arguments: Sequence[str], environment: Mapping[str, str], log: IO[bytes] | None
) -> Process:
    """Start gunicorn as everybody does."""
    return subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=log or subprocess.DEVNULL,
        stderr=log,
    )


@contextmanager
def server(  # noqa: PLR0913  # settings, all by name
    settings: Mapping[str, str],
    *,
    workers: int = 2,
    configuration: str = CONFIGURATION,
    application: str = "app:create_app()",
    log: IO[bytes] | None = None,
    bind: str | None = None,
    start: Start = start,
    are_mortal: bool = False,
) -> Iterator[Server]:
    """Serve with gunicorn on a free port for one ``with`` block; ``log`` gets what it prints.

    All workers are there when the block begins, unless they ``are_mortal``: those that die at
    their boot are never there together.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("JOSE_HSM_")}
    with nullcontext(bind) if bind else reserved_address() as address:
        environment = {
            **own,
            **settings,
            "JOSE_HSM_BIND": address,
            "WEB_CONCURRENCY": str(workers),
        }
        process = start(["-c", configuration, application], environment, log)
        try:
            _wait(lambda: _listens(address), process)
            _wait(lambda: are_mortal or len(workers_of(process.pid)) == workers, process)
            yield Server(address if address.startswith("unix:") else f"http://{address}", process)
        finally:
            process.terminate()
            process.wait(timeout=_STOP_SECONDS)


@contextmanager
def service(
    *, workers: int = 2, settings: Mapping[str, str] | None = None, has_kek: bool = False
) -> Iterator[Server]:
    """Serve a new token, which each worker has opened; it is gone at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory:
        own = make_token(Path(directory) / "state") | dict(settings or {})
        if has_kek:
            create_kek(own)
        with server(own, workers=workers) as running:
            _wait(lambda: connected_workers(running.url) == workers, running.process)
            yield running


def connected_workers(url: str, *, timeout_seconds: float = _READY_SECONDS) -> int:
    """Return how many workers say that they have their token."""
    text = requests.get(f"{url}/metrics", timeout=timeout_seconds).text
    return len(re.findall(r"^jose_hsm_token_up\{.*\} 1\.0$", text, re.MULTILINE))


@contextmanager
def reserved_address() -> Iterator[str]:
    """Keep a port of 127.0.0.1 for one ``with`` block: who asks for any port gets another.

    A server, which reuses addresses, may listen on it; until then nobody does.
    """
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{kept.getsockname()[1]}"


def _listens(bind: str) -> bool:
    path = bind.removeprefix("unix:")
    host, _, port = bind.rpartition(":")
    with socket.socket(socket.AF_INET if path == bind else socket.AF_UNIX) as probe:
        return probe.connect_ex((host, int(port)) if path == bind else path) == 0


def _wait(condition: Callable[[], bool], process: Process) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if condition():
            return
        time.sleep(0.05)
    raise RuntimeError("the server did not start")
