"""Forks programs from a process that has imported the service: imports are most of a start.

``tests.shared.forks`` starts it with one end of a socket and sends requests. What is forked is as
``python -m gunicorn`` or ``jose-hsm`` are just after their imports: no token, no file, no thread.
"""

import atexit
import faulthandler
import gc
import json
import os
import socket
import sys
from collections.abc import Callable
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pkcs11 import Token

from app.server import worker
from hsm.life import connection
from hsm.life.proof_cache import ProofCache
from tests.shared.waiting import PATIENCE_SECONDS

MOST_BYTES = 2**20
IMPORTED = (
    "app.factory",
    "app.operator.cli.audit",
    "app.operator.cli.backup",
    "app.operator.cli.doctor",
    "app.operator.cli.keys",
    "app.operator.cli.registry",
    "app.operator.cli.tokens",
    "gunicorn.app.wsgiapp",
    "psycopg",
    "pytest",
)
PROGRAMS = {
    "gunicorn": ("gunicorn.app.wsgiapp", "run"),
    "jose-hsm": ("app.operator.cli", "main"),
    "driver": ("tests.shared.drivers", "call"),
    "python": ("tests.shared.drivers", "execute"),
}


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each request until there are no more; return one in the process that is its own.

    The process between waits for it, and answers its id, and then its exit status.
    """
    while True:
        message, files, *_ = socket.recv_fds(control, MOST_BYTES, 3)
        if not message:
            return None
        if os.fork() == 0:
            control.close()
            break
        for file in files:
            os.close(file)
        _reap()
    out, err, end = files
    with socket.socket(fileno=end) as answers:
        pid = os.fork()
        if pid:
            os.close(out)
            os.close(err)
            answers.send(str(pid).encode())
            _, status = os.waitpid(pid, 0)
            answers.send(str(os.waitstatus_to_exitcode(status)).encode())
            os._exit(0)
    for file, standard in ((out, 1), (err, 2)):
        os.dup2(file, standard)
        os.close(file)
    request: dict[str, Any] = json.loads(message)
    return request


def _reap() -> None:
    """Let those go that have answered."""
    while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
        pass


def become(
    program: str,
    arguments: list[str],
    environment: dict[str, str],
    proofs: str | None,
    *,
    is_patient: bool,
) -> None:
    """Run ``program``, to the end of this process."""
    os.environ.clear()
    os.environ.update(environment)
    if "PYTHONFAULTHANDLER" in environment:
        faulthandler.enable()
    if is_patient:
        _replace(worker, "_OPENING_SECONDS", PATIENCE_SECONDS)
    if proofs is not None:
        _replace(connection, "ProofCache", _believing(Path(proofs)))
    sys.argv = [program, *arguments]
    module, function = PROGRAMS[program]
    status = 1
    # Registered first, so it runs last: freeing what was imported takes longer than a command.
    atexit.register(lambda: _leave(status))
    try:
        status = getattr(import_module(module), function)() or 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise


def _believing(directory: Path) -> type[ProofCache]:
    """Return caches that begin with what any other token of the same abilities was able to do.

    Only that is kept, in ``directory``: what a token is not able to do, each has to find out. So no
    fault of one test is believed in another.
    """

    class OfAnyToken(ProofCache):
        def __init__(self, _: object, token: Token) -> None:
            told = os.environ["JOSE_HSM_PKCS11_MODULE"], sorted(token.slot.get_mechanisms())
            self._path = directory / sha256(repr(told).encode()).hexdigest()
            self._known = {}

        def of(self, name: str, trial: Callable[[], str | None]) -> str | None:
            reason = super().of(name, trial)
            if reason is not None:
                del self._known[name]
            return reason

    return OfAnyToken


def _replace(module: ModuleType, name: str, value: object) -> None:
    assert name in vars(module)
    setattr(module, name, value)


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    for name in IMPORTED:
        import_module(name)
    gc.freeze()  # so that no collection copies their pages
    if (request := serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        become(**request)
