"""Octets of the members of a JWK, and what is demanded of them.

All here is pure. What is refused is a ``BadRequest``, whose description names the member at fault
and never shows its value.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, TypeVar

from cryptography.exceptions import InternalError, UnsupportedAlgorithm

from app.errors import BadRequest

Result = TypeVar("Result")

Octets = Mapping[str, bytes]
"""Members that are there."""

Members = Mapping[str, bytes | None]
"""Members of which some may be absent."""

# What ``cryptography`` raises for bad keys. ``suppress`` and a ``raise`` after it, unlike ``raise
# from None``, leave no ``__context__`` whose traceback would keep the members of the key alive.
REFUSED: Final = (ValueError, OverflowError, UnsupportedAlgorithm, InternalError)


def require(condition: bool, description: str) -> None:
    """Raise ``BadRequest`` unless ``condition`` holds."""
    if not condition:
        raise BadRequest(description)


def require_given(members: Members, name: str, kind: str) -> bytes:
    """Return member ``name``; raise ``BadRequest`` if it is absent."""
    octets = members.get(name)
    if octets is None:
        raise BadRequest(f"Field '{name}' is required to import {kind}")
    return octets


def require_bytes(name: str, octets: bytes, size_bytes: int) -> None:
    """Raise ``BadRequest`` unless member ``name`` is exactly ``size_bytes`` long."""
    require(len(octets) == size_bytes, f"Field '{name}' must be exactly {size_bytes} bytes")


def require_computed(name: str, octets: bytes | None, computed: bytes, private: str = "d") -> None:
    """Raise ``BadRequest`` if a public member is given and is not what ``private`` computes to."""
    if octets is not None:
        require_bytes(name, octets, len(computed))
        require(octets == computed, f"Field '{name}' does not match the private key '{private}'")


def read(convert: Callable[[bytes], Result], octets: bytes, name: str, expected: str) -> Result:
    """Return what ``convert`` makes of ``octets``; the library may lack it, as in FIPS mode."""
    with suppress(*REFUSED):
        return convert(octets)
    raise BadRequest(f"Field '{name}' is not {expected}")
