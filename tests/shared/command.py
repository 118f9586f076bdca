"""The command ``jose-hsm``, run in a process of its own."""

import os
import subprocess
from collections.abc import Mapping

from scripts.throwaway import ROOT


def jose_hsm(settings: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run it with ``settings``; return its status and what it printed."""
    return subprocess.run(
        [ROOT / ".venv" / "bin" / "jose-hsm", *arguments],
        env={**os.environ, **settings},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
