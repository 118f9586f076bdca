"""Services for the tests of the worker: some die or fail when they are loaded, one tells who it is.

Each load leaves a line in the file that ``LOADS`` names.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

PR_GET_DUMPABLE = 3


def _fail() -> None:
    raise PermissionError("the directory cannot be written")


def _later(death: Callable[[], object]) -> None:
    threading.Timer(0.05, death).start()


DEATHS: dict[str, Callable[[], object]] = {
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "segfault later": lambda: _later(lambda: os.kill(os.getpid(), signal.SIGSEGV)),
    "watchdog": lambda: os._exit(70),
    "watchdog later": lambda: _later(lambda: os._exit(70)),
    "boot error": lambda: os._exit(5),
    "exit 3": lambda: sys.exit(3),
    "exit 4": lambda: sys.exit(4),
    "exception": _fail,
}


def dies_of(cause: str) -> Callable[..., Iterable[bytes]]:
    """Die of ``cause`` as long as the file that ``CAUSE`` names exists."""
    with open(os.environ["LOADS"], "a") as loads:  # noqa: PTH123  # one line, in one write
        loads.write(f"{time.monotonic()}\n")
    if os.path.exists(os.environ["CAUSE"]):  # noqa: PTH110  # as above
        DEATHS[cause]()
    return tells


def tells(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer who this worker is."""
    told = {
        "pid": os.getpid(),
        "slot": int(os.environ["WORKER_SLOT"]),
        "dumpable": ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0),
        "headers": {name: value for name, value in environ.items() if name.startswith("HTTP_")},
        "body_bytes": len(environ["wsgi.input"].read()),
        "framing": environ.get("CONTENT_LENGTH"),
    }
    body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]
