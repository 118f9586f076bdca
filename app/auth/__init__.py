"""Who is calling. Without configured authentication everybody on loopback is ``anonymous``."""

from typing import Final

from flask import g

from app.rights import Principal

ANONYMOUS: Final = "anonymous"
_NOBODY: Final = Principal("")


def principal() -> Principal:
    """Return the principal of the current request, which has been authenticated."""
    found: Principal = g.principal
    return found


def caller() -> Principal | None:
    """Return the principal for a log; ``None`` for a request that has not been authenticated."""
    found: Principal | None = g.get("principal")
    return found
