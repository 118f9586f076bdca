"""Measure what logs, figures and the audit log cost a request, in CPU time.

    python -m scripts.trials.watching_cost

Calls a view that does nothing but tell the observer what one small operation tells it (five calls
into the token), through WSGI and without a network: bare, and watched as in a worker.
"""

import atexit
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flask import Flask

from app import current_request
from app.audit import AuditLog
from app.auth.client_address import ClientAddress
from app.config import Config
from app.http.audit_hook import AuditHook
from app.http.router import AUDITS, KINDS
from app.observability import Metrics, Requests, Stream, multiprocess
from hsm import Phase, State

REQUESTS: Final = 500
ROUNDS: Final = 40
KID: Final = "1548d721-0f4d-46cf-8e42-27889f386c1c"
CALLS: Final = ("C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_SignInit", "C_Sign")


class Token:
    """As much of a token as the figures ask."""

    sessions = (8, 1)
    state = State(Phase.READY)


def _app(view: Callable[[], dict[str, Any]]) -> Flask:
    app = Flask(__name__)
    app.add_url_rule("/v1/crypto/mac", "signing.mac", view, methods=["POST"])
    return app


def _bare() -> Flask:
    return _app(lambda: {"kid": KID, "mac": "x" * 43})


def _watched(directory: Path) -> Flask:
    multiprocess.prepare(directory)
    config = Config(
        pkcs11_module=Path("none"),
        token_label=directory.name,
        pin_file=directory,
        state_dir=directory,
    )
    metrics = Metrics()
    stream = Stream(os.open(os.devnull, os.O_WRONLY), dropped=metrics.dropped)

    def view() -> dict[str, Any]:
        current_request.name(kid=KID, alg="HS256")
        metrics.used_registry(0.0004)
        metrics.waited(0.00001)
        for function in CALLS:
            metrics.called(function, 0.0001, None)
        return {"kid": KID, "mac": "x" * 43}

    app = _app(view)
    log = AuditLog(directory / "audit.log")
    audit_hook = AuditHook(log, metrics, ClientAddress(None), lambda _kid: None, AUDITS)
    Requests(config, stream, metrics, audit_hook.end, KINDS).register(app)
    stream.start()
    metrics.start(Token())  # type: ignore[arg-type]  # see above
    return app


def _microseconds(app: Flask) -> float:
    def start_response(*_arguments: Any) -> Callable[[bytes], object]:
        return lambda _data: None

    environ = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/v1/crypto/mac",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
    }
    started = time.process_time()
    for _ in range(REQUESTS):
        for _part in app.wsgi_app(dict(environ), start_response):
            pass
    return 1e6 * (time.process_time() - started) / REQUESTS


def main() -> None:
    """Print the times."""
    directory = tempfile.mkdtemp(prefix="jose-hsm-")
    atexit.register(shutil.rmtree, directory)  # behind the last figures, which come then
    bare, watched = _bare(), _watched(Path(directory))
    rounds = [(_microseconds(bare), _microseconds(watched)) for _ in range(ROUNDS)]
    least = [min(column) for column in zip(*rounds, strict=True)]
    print(f"bare {least[0]:.1f} us, watched {least[1]:.1f} us: {least[1] - least[0]:.1f} us more")


if __name__ == "__main__":
    main()
