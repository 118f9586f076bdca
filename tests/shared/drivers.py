"""Code of tests in processes of their own: a process has one PKCS#11 library."""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from tests.shared.forks import completed


def result_of(
    environment: Mapping[str, str],
    driver: Callable[..., Any],
    *arguments: Any,
    proves: bool = False,
) -> Any:
    """Run ``driver`` in a process of its own; return its result. All is as JSON can say it.

    One that ``proves`` tries its token itself, and believes nobody else.
    """
    command = [driver.__module__, driver.__name__, json.dumps(arguments)]
    done = completed("driver", command, environment, proves=proves)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def dies(environment: Mapping[str, str], driver: Callable[..., object], *arguments: object) -> None:
    """Run ``driver`` in a process of its own, which has to be ``killed``."""
    command = [driver.__module__, driver.__name__, json.dumps(arguments)]
    done = completed("driver", command, environment)
    assert abs(done.returncode) == signal.SIGKILL, done


def killed(*_arguments: object, **_members: object) -> None:
    """Be killed here."""
    os.kill(os.getpid(), signal.SIGKILL)


def call() -> None:
    """Call the function that the arguments name; print its result, and end without ado."""
    module, name, arguments = sys.argv[1:]
    result = getattr(import_module(module), name)(*json.loads(arguments))
    print(json.dumps(result), flush=True)
    os._exit(0)


def execute() -> None:
    """Run the code that is the first argument, as ``python -c`` does."""
    exec(sys.argv.pop(1), {})
