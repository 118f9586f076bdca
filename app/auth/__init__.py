"""Who is calling. Without configured authentication everybody on loopback is ``anonymous``."""

from typing import Final

ANONYMOUS: Final = "anonymous"


def principal() -> str:
    """Return the principal of the current request."""
    return ANONYMOUS


def caller() -> str | None:
    """Return the principal for a log; ``None`` for a request that has not been authenticated."""
    try:
        return principal()
    except AttributeError:  # of flask.g
        return None
