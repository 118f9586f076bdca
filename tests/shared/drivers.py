"""Code of tests in processes of their own: a process has one PKCS#11 library."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from tests.shared.forks import completed, fork
from tests.shared.waiting import COMMAND


def result_of(
    environment: Mapping[str, str],
    driver: Callable[..., Any],
    *arguments: Any,
    proves: bool = False,
) -> Any:
    """Run ``driver`` in a process of its own; return its result. All is as JSON can say it.

    One that ``proves`` tries its token itself, and believes nobody else.
    """
    done = end_of(environment, driver, *arguments, proves=proves)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def end_of(
    environment: Mapping[str, str],
    driver: Callable[..., object],
    *arguments: object,
    proves: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run ``driver`` so, however it ends; return its status and what it printed."""
    return completed("driver", _command(driver, arguments), environment, proves=proves)


def dies(environment: Mapping[str, str], driver: Callable[..., object], *arguments: object) -> None:
    """Run ``driver`` in a process of its own, which has to be ``killed``."""
    done = end_of(environment, driver, *arguments)
    assert abs(done.returncode) == signal.SIGKILL, done


@contextmanager
def beside(
    environment: Mapping[str, str], driver: Callable[..., object], *arguments: object
) -> Iterator[Callable[[], Any]]:
    """Run ``driver`` for one ``with`` block; what this gives returns the next that it has said."""
    receiving, sending = os.pipe()
    with os.fdopen(receiving) as said:
        try:
            process = fork(
                "driver",
                _command(driver, arguments),
                {**os.environ, **environment},
                files=(sending, sys.stderr.fileno()),
            )
        finally:
            os.close(sending)
        try:
            yield lambda: json.loads(said.readline())
        finally:
            process.kill()
            process.wait(COMMAND.seconds)


def _command(driver: Callable[..., object], arguments: tuple[object, ...]) -> list[str]:
    return [driver.__module__, driver.__name__, json.dumps(arguments)]


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
