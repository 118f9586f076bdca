"""Services and commands in processes that need not import anything (``tests.shared.nursery``)."""

import atexit
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from scripts import throwaway
from scripts.throwaway import ROOT, Server
from tests.shared import nursery
from tests.shared.api import hang_up
from tests.shared.waiting import PATIENCE_SECONDS, are_promises_held

COMMON = "TESTS_COMMON_DIRECTORY"
"""The variable that names a directory of all processes of a run of the tests."""
MAKE = "TESTS_TOKEN"
"""The variable that names the make of token of a run of the tests."""

_STDERR = 2
_FIRST = threading.Lock()  # of threads that ask for proofs at once, one tries the token


class Process:
    """A process forked by the nursery, with what tests use of ``subprocess.Popen``."""

    returncode: int | None = None

    def __init__(self, answers: socket.socket) -> None:
        self._answers = answers
        self.pid = int(answers.recv(nursery.MOST_BYTES))

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status; raise ``TimeoutError`` if it has none after ``timeout``."""
        if self.returncode is None:
            self._answers.settimeout(timeout)
            self.returncode = int(self._answers.recv(nursery.MOST_BYTES))
            self._answers.close()
        return self.returncode

    def poll(self) -> int | None:
        """Return its exit status, or ``None`` while it runs."""
        try:
            return self.wait(0)
        except BlockingIOError:
            return None

    def send_signal(self, sig: int) -> None:
        """Send a signal if it runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, and is about to be answered
                os.kill(self.pid, sig)

    def terminate(self) -> None:
        """Send SIGTERM if it runs."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL if it runs."""
        self.send_signal(signal.SIGKILL)


class _Nursery:
    """The nursery of this process. It ends with it."""

    def __init__(self) -> None:
        self._control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.shared.nursery", str(its.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
            )
        atexit.register(self._close)

    def _close(self) -> None:
        self._control.close()
        self._process.wait()

    def request(self, request: Mapping[str, Any], files: list[int]) -> None:
        """Have something forked that has ``files``."""
        socket.send_fds(self._control, [json.dumps(request).encode()], files)


_nursery = cache(_Nursery)


def proven() -> Any:
    """Return what the token is able to do; ``None`` where everybody has to find it out."""
    if are_promises_held():
        return None
    with _FIRST:
        return _proofs()


@cache
def _proofs() -> Any:
    """Return what the token is able to do, tried once for all processes of a run of the tests."""
    if COMMON not in os.environ:  # a trial that is run alone
        return json.loads(_tried())
    kept = Path(os.environ[COMMON], "proofs.json")
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            kept.write_text(_tried())
    return json.loads(kept.read_bytes())


def _tried() -> str:
    """Return that as JSON, found out in processes that no fault befalls."""
    with tempfile.TemporaryDirectory() as directory:
        make = os.environ.get(MAKE, "softhsm")
        settings = throwaway.make_token(Path(directory) / "state", make)
        if make == "softhsm":  # what can be kept wrapped is tried where there is a key to wrap it
            _found(settings, makes_kek=True)
        return _found(settings, makes_kek=False)


def _found(settings: Mapping[str, str], *, makes_kek: bool) -> str:
    """Return what a token is able to do, as JSON; what was found of it before is believed."""
    arguments = [nursery.__name__, nursery.proofs.__name__, json.dumps([makes_kek])]
    done = completed("driver", arguments, settings, proves=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fork(  # noqa: PLR0913  # settings, all by name
    program: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    files: Sequence[int],
    directory: str = str(ROOT),
    is_patient: bool = False,
    proves: bool = False,
) -> Process:
    """Run ``program`` in ``directory`` with just that environment.

    The first two ``files`` get what it prints; it reads a third if there is one, else nothing.

    A service that ``is_patient`` accepts nobody before it has tried its token, and knows whether it
    is of its registry, however long that takes. A process that ``proves`` tries what its token is
    able to do, and hashes its PIN slowly, as all do where promises are held; others believe what
    one has found for all, which saves most of a boot, and do so of a token that was lost, too.
    """
    request = {
        "program": program,
        "arguments": arguments,
        "environment": dict(environment),
        "directory": directory,
        "proofs": None if proves else proven(),
        "is_patient": is_patient,
    }
    answers, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with end:
        _nursery().request(request, [*files, end.fileno()])
    return Process(answers)


def completed(
    program: str, arguments: Sequence[str], settings: Mapping[str, str], *, proves: bool = False
) -> "subprocess.CompletedProcess[str]":
    """Run ``program`` to its end, with ``settings`` beside what is set here."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        environment, files = {**os.environ, **settings}, (out.fileno(), err.fileno())
        process = fork(program, arguments, environment, files=files, proves=proves)
        status = process.wait(PATIENCE_SECONDS)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, status, out.read(), err.read())


@contextmanager
def server(
    settings: Mapping[str, str], *, is_patient: bool = True, **options: Any
) -> Iterator[Server]:
    """Serve as ``scripts.throwaway.server`` does, started just so where promises are held."""
    if not are_promises_held():
        options["start"] = _start(is_patient=is_patient)
    with throwaway.server(settings, **options) as running:
        try:
            yield running
        finally:
            hang_up(running.url)


def _start(*, is_patient: bool) -> throwaway.Start:
    """Return what starts gunicorn in a process that need not import anything."""

    def start(
        arguments: Sequence[str], environment: Mapping[str, str], log: IO[bytes] | None
    ) -> Process:
        with Path(os.devnull).open("wb") as null:
            files = (log.fileno(), log.fileno()) if log else (null.fileno(), _STDERR)
            return fork("gunicorn", arguments, environment, files=files, is_patient=is_patient)

    return start
