"""The libraries, each with how its program is built and run; tests/peers says what that does."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from scripts.throwaway import ROOT

PROGRAMS: Final = ROOT / "tests" / "peers"
_NODE: Final = ROOT / "tests" / "node"
_SECONDS: Final = 600  # a bound for what hangs

Task = dict[str, Any]
Outcome = dict[str, Any]


class Peer(NamedTuple):
    """A library: its version, the tools that it needs, and how to get the command of its program.

    ``command`` builds the program, if need be, in a directory that is thrown away.
    """

    version: Callable[[], str]
    tools: tuple[str, ...]
    command: Callable[[Path], list[str]]

    @property
    def missing(self) -> list[str]:
        """The tools that are not installed."""
        return [tool for tool in self.tools if shutil.which(tool) is None]

    def perform(self, tasks: Iterable[Task]) -> list[Outcome]:
        """Return the outcome of each task, all of one process."""
        lines = "".join(f"{json.dumps(task)}\n" for task in tasks)
        with tempfile.TemporaryDirectory(prefix="jose-hsm-peer-") as directory:
            printed = _run(self.command(Path(directory)), input=lines)
        return [json.loads(line) for line in printed.splitlines()]


def _run(command: list[str], **options: Any) -> str:
    """Return what a command prints; raise ``RuntimeError`` with what it complains of."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=_SECONDS, **options
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")
    return done.stdout


def _found(pattern: str, path: Path) -> str:
    """Return what a file pins."""
    (pinned,) = re.findall(pattern, path.read_text("utf-8"))
    return str(pinned)


def _python(name: str, _directory: Path) -> list[str]:
    return [sys.executable, str(PROGRAMS / "python.py"), name]


def _node(_directory: Path) -> list[str]:
    return ["node", str(_NODE / "peer.js")]


def _go(directory: Path) -> list[str]:
    program = directory / "peer"
    _run(["go", "build", "-o", str(program), "."], cwd=PROGRAMS / "go")
    return [str(program)]


def _java(directory: Path) -> list[str]:
    path = directory / "classpath"
    _run(
        ["mvn", "-q", "-B", "dependency:build-classpath", f"-Dmdep.outputFile={path}"],
        cwd=PROGRAMS / "java",
    )
    libraries = path.read_text("utf-8").strip()
    _run(["javac", "-cp", libraries, "-d", str(directory), str(PROGRAMS / "java" / "Peer.java")])
    return ["java", "-cp", os.pathsep.join((str(directory), libraries)), "Peer"]


PEERS: Final[Mapping[str, Peer]] = MappingProxyType(
    {
        **{
            name: Peer(partial(metadata.version, name), (), partial(_python, name))
            for name in ("joserfc", "jwcrypto", "PyJWT", "Authlib")
        },
        "npm jose": Peer(
            partial(
                _found, r'"node_modules/jose": {\s*"version": "(.+)"', _NODE / "package-lock.json"
            ),
            ("node",),
            _node,
        ),
        "go-jose": Peer(
            partial(_found, r"go-jose/v4 v(\S+)", PROGRAMS / "go" / "go.mod"), ("go",), _go
        ),
        "nimbus-jose-jwt": Peer(
            partial(
                _found, r"jose-jwt</artifactId>\s*<version>(.+)<", PROGRAMS / "java" / "pom.xml"
            ),
            ("java", "javac", "mvn"),
            _java,
        ),
    }
)
