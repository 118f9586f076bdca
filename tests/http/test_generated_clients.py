"""Generators make clients of the document, and these are asked to use the service."""

import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.throwaway import ROOT
from tests.shared.waiting import COMMAND

CLIENTS = ROOT / "tests" / "clients"


@dataclass(frozen=True, kw_only=True)
class Generator:
    """What is run, in a copy of the folder of its name, and what of it has to be there."""

    name: str
    commands: tuple[str, ...]
    needs: tuple[str, ...] = ()

    def client(self, folder: Path, url: str) -> str:
        """Generate a client, have it use the service at ``url``, and return what it prints."""
        shutil.copytree(CLIENTS / self.name, folder, dirs_exist_ok=True)
        words = {"python": sys.executable, "document": ROOT / "docs" / "openapi.json", "url": url}
        for command in self.commands:
            said = run(command.format(**words), folder)
        return said


def run(command: str, folder: Path) -> str:
    done = subprocess.run(
        shlex.split(command),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND.seconds,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


ALWAYS = Generator(
    name="openapi_python_client",
    commands=(
        "{python} -m openapi_python_client generate --path {document} --fail-on-warning"
        " --meta none --output-path client --config settings.json",
        "{python} calls.py {url}",
    ),
)


@pytest.mark.parametrize("generator", [ALWAYS], ids=lambda one: one.name)
def test_generated_clients_work(generator: Generator, server: str, tmp_path: Path) -> None:
    assert generator.client(tmp_path, server) == "all is well\n"
