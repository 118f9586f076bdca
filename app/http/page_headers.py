"""What browsers must obey on the pages for people: nothing of others, nobody around them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from flask import Response

_NOTHING: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'")
)


def protected(**allowed: str) -> Callable[[Response], Response]:
    """Return a hook that forbids all but what is ``allowed``, by directive (CSP level 3 §6)."""
    directives = {**_NOTHING} | {name.replace("_", "-"): source for name, source in allowed.items()}
    policy = "; ".join(f"{name} {source}" for name, source in directives.items())

    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    return protect
