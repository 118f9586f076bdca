"""The manual page has every command, and is what man reads."""

import shutil
import subprocess

import pytest

from app.operator.cli import jose_hsm
from scripts.throwaway import ROOT

PAGE = ROOT / "docs" / "jose-hsm.1"


def test_the_manual_has_every_command():
    page = PAGE.read_text()
    for command in (*jose_hsm.commands, *jose_hsm.at_service):
        name = command.replace("-", "\\-")
        assert f".SS jose\\-hsm {name} " in page


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_the_manual_is_as_man_reads_it():
    groff = ["groff", "-man", "-wmac", "-wescape", "-z"]
    done = subprocess.run([*groff, PAGE], check=True, capture_output=True)
    assert done.stderr == b""
