"""No process of ours leaves its memory, or files that others can read."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.throwaway import ROOT
from tests.shared.command import jose_hsm

TELLING = """
import ctypes, json, os, resource, sys
from app.operator import cli
sys.argv = ["jose-hsm", "--help"]
cli.main()
umask = os.umask(0)
core = resource.getrlimit(resource.RLIMIT_CORE)
print(json.dumps({"dumpable": ctypes.CDLL(None).prctl(3), "core": core, "umask": umask}))
"""


def told(**environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", TELLING],
        env={**os.environ, **environment},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_a_command_is_confined():
    assert told() == {"dumpable": 0, "core": [0, 0], "umask": 0o077}
    assert told(WORKER_DUMPS="1") | {"core": []} == {"dumpable": 1, "core": [], "umask": 0o077}


@pytest.mark.parametrize("umask", [0o022, 0o000])
def test_files_are_for_their_owner_alone(tmp_path: Path, umask: int):
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    settings = {
        "JOSE_HSM_STATE_DIR": str(state),
        "JOSE_HSM_PKCS11_MODULE": "/none",
        "JOSE_HSM_TOKEN_LABEL": "none",
        "JOSE_HSM_PIN_FILE": "/none",
    }
    before = os.umask(umask)
    try:
        assert jose_hsm(settings, "migrate").returncode == 0
        assert jose_hsm(settings, "token", "create", "--principal", "ci").returncode == 0
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()}
    assert {"registry.db", "audit.log"} <= modes.keys()
    assert {mode & 0o077 for mode in modes.values()} == {0}, modes
