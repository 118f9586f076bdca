"""The command ``jose-hsm``, run in a process of its own."""

import os
import subprocess
import tempfile
from collections.abc import Mapping

from tests.shared.forks import fork
from tests.shared.waiting import PATIENCE_SECONDS


def jose_hsm(settings: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run it with ``settings``; return its status and what it printed."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        files = out.fileno(), err.fileno()
        process = fork("jose-hsm", arguments, {**os.environ, **settings}, files=files)
        status = process.wait(PATIENCE_SECONDS)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, status, out.read(), err.read())
