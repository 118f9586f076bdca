"""Who is calling. Without configured authentication everybody on loopback is ``anonymous``."""

from typing import Final

ANONYMOUS: Final = "anonymous"


def principal() -> str:
    """Return the principal of the current request."""
    return ANONYMOUS
