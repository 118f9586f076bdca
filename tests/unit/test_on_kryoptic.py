"""A machine on which Kryoptic cannot be built is told why it is not tried, and fails nothing."""

import os
import subprocess
from pathlib import Path

import pytest

from scripts.throwaway import ROOT


def tried(
    tmp_path: Path, cargo: str, seconds: int, **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Try with this cargo, and nothing built before, for so long."""
    toolchain = tmp_path / "toolchain"
    toolchain.mkdir()
    (toolchain / "cargo").write_text(f"#!/bin/sh\n{cargo}\n")
    (toolchain / "cargo").chmod(0o700)
    path = f"{toolchain}:{os.environ['PATH']}"
    own = {"PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache"), "JOSE_HSM_KRYOPTIC": "build"}
    command = [str(ROOT / "scripts" / "on_kryoptic"), str(seconds)]
    environment = os.environ | own | settings
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.long
@pytest.mark.parametrize(
    ("cargo", "seconds", "reason"),
    [
        ("echo 'error: no such toolchain' >&2; exit 1", 60, "cargo: error: no such toolchain"),
        ("exec sleep 600", 3, "its build took more than 3 s"),
    ],
)
def test_a_build_that_does_not_succeed_is_told_and_is_a_failure_if_it_is_required(
    tmp_path, cargo, seconds, reason
):
    done = tried(tmp_path, cargo, seconds)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert "nothing was tested on Kryoptic" in done.stdout
    assert reason in done.stdout or "kryoptic needs: opensc" in done.stdout
    (tmp_path / "again").mkdir()
    assert tried(tmp_path / "again", cargo, seconds, JOSE_HSM_KRYOPTIC="required").returncode == 1


def test_nothing_is_built_unasked(tmp_path):
    done = tried(tmp_path, "exit 1", 60, JOSE_HSM_KRYOPTIC="")
    assert done.returncode == 0
    assert done.stdout.endswith("its library is not built; JOSE_HSM_KRYOPTIC=build builds it\n")
    assert done.stdout.count("\n") == 1
