"""How keys are made whose rows are there already, or will be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.idempotency import IdempotentRequest
from app.jwk import write_public
from app.registry import Answer, Key, Tagging
from hsm import KeyRef, Made


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """``keys`` that are to be there, all or none, each as ``make`` has the token make it.

    ``answer`` is what to say of them, and to remember of ``request``. The key ``wrapping``, by
    which one comes in, is gone by that.
    """

    keys: Sequence[Key]
    make: Callable[[KeyRef], Made]
    tagging: Tagging
    request: IdempotentRequest | None
    answer: Answer
    wrapping: Key | None = None


def public_jwk(made: Made) -> dict[str, str] | None:
    """Return the public half of a new pair as a JWK."""
    return write_public(made.public) if made.public else None
