"""What ``make token`` makes of a token that has daemons: it is there while a shell runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.throwaway import ROOT
from scripts.tokens import TOKENS
from tests.shared.tokens import require

WITH_DAEMONS = [name for name, token in TOKENS.items() if token.has_daemons]


def typed_into(name: str, state_dir: Path, command: str) -> str:
    """What ``command`` prints in the shell."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "scripts.make_token", name, str(state_dir)],
        cwd=ROOT,
        env=os.environ | {"SHELL": "/bin/sh", "PATH": path},
        input=command,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize("name", WITH_DAEMONS)
def test_the_shell_has_the_token_and_the_next_one_has_it_with_its_objects(name, tmp_path):
    require(name)
    settings = tmp_path / "state" / "token.env"
    doctor = f"jose-hsm --settings {settings} doctor\n"
    first = typed_into(name, tmp_path / "state", doctor)
    assert " ok, " in first.splitlines()[-1]
    assert " failed" not in first.splitlines()[-1]
    made = settings.read_text()
    again = typed_into(name, tmp_path / "state", doctor)
    assert settings.read_text() == made
    assert again.splitlines()[-1] == first.splitlines()[-1]
