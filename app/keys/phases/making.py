"""How a key is made whose row is there already, or will be."""

from collections.abc import Callable

from app.jwk import write_public
from hsm import KeyRef, Made

Make = Callable[[KeyRef], Made]
"""Makes a key in the token."""


def public_jwk(made: Made) -> dict[str, str] | None:
    """Return the public half of a new pair as a JWK."""
    return write_public(made.public) if made.public else None
