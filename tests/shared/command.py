"""The command ``jose-hsm``, run in a process of its own."""

import re
import subprocess
from collections.abc import Mapping

import pytest

from tests.shared.forks import completed


def jose_hsm(settings: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run it with ``settings``; return its status and what it printed."""
    return completed("jose-hsm", arguments, settings)


def printed_url(process: "subprocess.Popen[str]") -> str:
    """Return the URL that a service says it serves; fail with its words if it ends before."""
    lines = []
    for line in process.stdout or ():
        lines.append(line)
        if url := re.search(r"http://127\.0\.0\.1:\d+", line):
            return url[0]
    pytest.fail("".join(lines))


def with_kek(settings: dict[str, str]) -> dict[str, str]:
    """Make a key-encryption key on the token of ``settings``, and return them."""
    done = jose_hsm(settings, "kek", "create")
    assert done.returncode == 0, done.stderr
    return settings
