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
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pkcs11 import Token

from app.config import Config
from app.errors import RegistryCause
from app.operator.doctor import doctor
from app.registry.watch import Watch
from app.server import worker
from app.service import service_of
from hsm import Hsm, Phase
from hsm.cryptoki import pin_latch
from hsm.examination import examination
from hsm.importing import wrapped_imports
from hsm.life import connection
from hsm.life.proof_cache import ProofCache
from hsm.storage import transfer
from hsm.waiting import Resting
from tests.shared.waiting import PATIENCE_SECONDS, until

MOST_BYTES = 2**20
IMPORTED = (
    "alembic.config",
    "alembic.migration",
    "alembic.script",
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
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "sqlite3",
    "tests.shared.drivers",
)
_RATE_SECONDS = 0.02  # that there is a rate is the claim, and not how good it is
_WRAPPING_BITS = 2048  # and that keys come in wrapped; a pair of 3072 bits takes thrice as long
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
        message, files, *_ = socket.recv_fds(control, MOST_BYTES, 4)
        if not message:
            return None
        if os.fork() == 0:
            control.close()
            break
        for file in files:
            os.close(file)
        _reap()
    *files, end = files
    with socket.socket(fileno=end) as answers:
        pid = os.fork()
        if pid:
            for file in files:
                os.close(file)
            answers.send(str(pid).encode())
            _, status = os.waitpid(pid, 0)
            answers.send(str(os.waitstatus_to_exitcode(status)).encode())
            os._exit(0)
    for file, standard in zip(files, (1, 2, 0), strict=False):
        os.dup2(file, standard)
        os.close(file)
    request: dict[str, Any] = json.loads(message)
    os.chdir(request.pop("directory"))
    return request


def _reap() -> None:
    """Let those go that have answered, be it all that there are."""
    with suppress(ChildProcessError):
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
            pass


def become(
    program: str,
    arguments: list[str],
    environment: dict[str, str],
    proofs: dict[str, Any] | None,
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
        _replace(worker, "_is_opening", _is_not_asked(worker._is_opening))
    if proofs is not None:
        believe(proofs, environment.get("JOSE_HSM_PKCS11_MODULE"))
        _replace(pin_latch, "_hash", _quick_hash)
        _replace(doctor, "_RATE_SECONDS", _RATE_SECONDS)
        _replace(transfer, "BITS", _WRAPPING_BITS)
        _replace(wrapped_imports, "_BITS", _WRAPPING_BITS)
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


def believe(proofs: Mapping[str, Any], module: str | None) -> None:
    """Have this process, which uses ``module``, believe what was found of such tokens."""
    believing = _believing(proofs, module)
    _replace(connection, "ProofCache", believing)
    _replace(examination, "ProofCache", believing)


def proofs(makes_kek: bool) -> dict[str, Any]:
    """Return what the token of this process was able to do, and why it was not.

    A key-encryption key that this makes is for whoever comes next.
    """
    config = Config.from_env(os.environ)
    token = Hsm(replace(config.hsm_settings, shared_dir=config.state_dir))
    token.start()
    until(lambda: token.reason is None)
    token.imports._imports()  # tried only when somebody asks for the first time
    if makes_kek:
        token.keeping.create_kek(extractable=False)
    [path] = config.state_dir.glob("proofs-*.json")
    return {
        "of": _abilities(token._connection.token.pool.token, str(config.pkcs11_module)),
        "known": json.loads(path.read_bytes()),
    }


def _abilities(token: Token, module: str | None) -> list[Any]:
    """Return what a token says of itself that is the same of all that one library makes."""
    return [module, sorted(map(int, token.slot.get_mechanisms()))]


def _believing(proofs: Mapping[str, Any], module: str | None) -> type[ProofCache]:
    """Return caches that begin with ``proofs`` whenever a token of the same abilities is opened."""

    class OfAnyToken(ProofCache):
        def __init__(
            self,
            directory: Path | None,
            token: Token,
            parameters: str | None = None,
            resting: Resting = nullcontext,
        ) -> None:
            super().__init__(directory, token, parameters, resting)
            self._is_of_those = _abilities(token, module) == proofs["of"]
            if self._is_of_those:
                self._known = dict(proofs["known"])

        @contextmanager
        def shared(self, *, believe: bool) -> Iterator[None]:
            if self._is_of_those:
                yield
            else:
                with super().shared(believe=believe):
                    yield

    return OfAnyToken


def _is_not_asked(is_opening: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Tell of a service also whether its token is open, and not known yet to be of its registry.

    Until the registry was asked for the first time, the service says that it is starting. A token
    that takes long to open has not answered that when it is asked first; until it is asked again,
    a moment later, the service says that it is not ready.
    """

    was_asked, ask = threading.Event(), Watch._ask

    def ask_and_tell(watch: Watch) -> None:
        try:
            ask(watch)
        finally:
            was_asked.set()

    def is_not_asked(app: Any) -> bool:
        if is_opening(app):
            return True
        with suppress(AttributeError, KeyError):  # any WSGI application
            service = service_of(app)
            is_open = service.hsm.state.phase is Phase.READY
            is_unknown = service.watch.cause is RegistryCause.UNCONFIRMED
            return is_open and (is_unknown or not was_asked.is_set())
        return False

    setattr(Watch, "_ask", ask_and_tell)  # noqa: B010  # a method
    return is_not_asked


def _quick_hash(salt: bytes, serial: bytes, pin: str) -> bytes:
    """Return a hash of a PIN that takes no time: the real one takes a third of a start."""
    return sha256(salt + serial + b"\0" + pin.encode()).digest()


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
