"""The command ``jose-hsm``, run in a process of its own."""

import subprocess
from collections.abc import Mapping

from tests.shared.forks import completed


def jose_hsm(settings: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run it with ``settings``; return its status and what it printed."""
    return completed("jose-hsm", arguments, settings)


def with_kek(settings: dict[str, str]) -> dict[str, str]:
    """Make a key-encryption key on the token of ``settings``, and return them."""
    done = jose_hsm(settings, "kek", "create")
    assert done.returncode == 0, done.stderr
    return settings
