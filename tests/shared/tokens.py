"""Tokens of other makes, and why one is not here."""

import pytest

from scripts.tokens import TOKENS


def reason_against(name: str) -> str | None:
    """Return why there can be no token of that make here, or ``None``. Nothing is compiled."""
    if missing := TOKENS[name].needs():
        return f"{name} needs {missing}"
    if not TOKENS[name].is_built:
        return f"{name} is not built here: make token TOKEN={name} does that, in minutes"
    return None


def require(name: str) -> None:
    """Skip if there can be none."""
    if reason := reason_against(name):
        pytest.skip(reason)
