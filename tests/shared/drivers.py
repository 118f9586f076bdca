"""Functions of tests in processes of their own: a process has one PKCS#11 library."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from tests.shared.forks import fork
from tests.shared.waiting import PATIENCE_SECONDS


def result_of(environment: Mapping[str, str], driver: Callable[..., Any], *arguments: Any) -> Any:
    """Run ``driver`` in a process of its own; return its result. All is as JSON can say it."""
    command = [driver.__module__, driver.__name__, json.dumps(arguments)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        files = out.fileno(), err.fileno()
        environment = {**os.environ, **environment}
        process = fork("driver", command, environment, files=files, trusting=False)
        status = process.wait(PATIENCE_SECONDS)
        out.seek(0)
        err.seek(0)
        assert status == 0, err.read()
        return json.loads(out.read().splitlines()[-1])


def main() -> None:
    """Call the function that the arguments name; print its result, and end without ado."""
    module, name, arguments = sys.argv[1:]
    result = getattr(import_module(module), name)(*json.loads(arguments))
    print(json.dumps(result), flush=True)
    os._exit(0)
