"""Where a request's time goes: the CPU time of one worker under load, by part.

The parts are functions of the service and of what it is built on, wrapped when the worker starts.
Time inside a part belongs to it until the next one begins. CPU time is the thread's own, so that
neither other processes nor waiting count; reading that clock adds a little to every part.
"""

import importlib
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Final

import requests
from flask import Flask

from scripts.bench.load import Load
from scripts.bench.points import Client, Point
from scripts.throwaway import make_token, server

_PATH: Final = "/profile"
_REST: Final = "gunicorn: main loop, queue, switches between threads"
_CONNECTIONS: Final = 4

PARTS: Final = (
    ("worker: thread", "app.server.threads", ["Threads._serve"]),
    ("worker: parse", "app.server.connection", ["Connection.take"]),
    ("gunicorn: write", "gunicorn.http.wsgi", ["Response.write", "Response.close"]),
    ("Flask", "flask", ["Flask.__call__"]),
    ("body: read", "app.http.request_body", ["read"]),
    ("body: parse", "app.jose.strict_json", ["loads"]),
    ("body: validate", "app.schemas.schema", ["RequestSchema.load"]),
    ("use of keys", "app.keys.use", ["KeyUse.encrypt", "KeyUse.mac", "KeyUse.sign"]),
    ("registry", "app.registry.registry", ["Registry.find_for"]),
    ("hsm: session, handle, faults", "hsm.adapter", ["Hsm.encrypt", "Hsm.mac", "Hsm.sign"]),
    (
        "token: python-pkcs11 and SoftHSM",
        "hsm.cryptoki.handles",
        ["Key.encrypt", "Key.decrypt", "Key.sign"],
    ),
    ("token: python-pkcs11 and SoftHSM", "pkcs11", ["Session.generate_random"]),
    ("answer: dump", "app.schemas.schema", ["ResponseSchema.dump"]),
    ("answer: JSON", "app.http.application", ["Application.make_response"]),
    ("figures, headers, log", "app.observability.requests", ["Requests.end"]),
    ("audit", "app.http.audit_hook", ["AuditHook.end"]),
)


class Clock(threading.local):
    """What this thread has spent on each part, in nanoseconds."""

    everybody: Final[list[Counter[str]]] = []

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.everybody.append(self.spent)
        self.part, self.since = _REST, time.thread_time_ns()

    def turn(self, part: str) -> str:
        """Go on with ``part``; return the one before."""
        now, before = time.thread_time_ns(), self.part
        self.spent[before] += now - self.since
        self.part, self.since = part, now
        return before


def create_app() -> Flask:
    """Build the service with its parts wrapped, and the figures at ``_PATH``."""
    clock = Clock()
    for title, module, names in PARTS:
        for name in names:
            _wrap(importlib.import_module(module), name.split("."), title, clock)
    app: Flask = importlib.import_module("app").create_app()

    @app.get(_PATH)
    def profile() -> dict[str, int]:
        parts = sum((spent.copy() for spent in clock.everybody), Counter[str]())
        parts[_REST] = time.process_time_ns() - (parts.total() - parts[_REST])
        return dict(parts)

    return app


def _wrap(owner: Any, path: list[str], title: str, clock: Clock) -> None:
    if len(path) > 1:
        _wrap(getattr(owner, path[0]), path[1:], title, clock)
        return
    function = getattr(owner, path[0])

    @wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        before = clock.turn(title)
        try:
            return function(*args, **kwargs)
        finally:
            clock.turn(before)

    setattr(owner, path[0], timed)


def measure(
    points: Sequence[Point], *, seconds: int, say: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Return for each point the microseconds of a request that each part takes."""
    with tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory:
        settings = make_token(Path(directory) / "state")
        with server(settings, workers=1, application=f"{__name__}:create_app()") as running:
            profiles = {}
            for point in points:
                say(f"profiling: {point.title}")
                client = Client(running.url)
                load = Load(client.url + point.path, [point.body(client)])
                load.run(_CONNECTIONS, 1)
                before = _spent(running.url)
                requests_ = load.run(_CONNECTIONS, seconds).requests
                after = _spent(running.url)
                profiles[point.title] = {
                    part: (after[part] - before.get(part, 0)) / requests_ / 1000
                    for part in dict.fromkeys([*(title for title, *_ in PARTS), _REST])
                    if after.get(part)
                }
            return profiles


def _spent(url: str) -> dict[str, int]:
    answer: dict[str, int] = json.loads(requests.get(url + _PATH, timeout=60).content)
    return answer
