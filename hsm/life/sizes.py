"""How long a plaintext may be: as long as callers may send, unless the token takes less."""

from collections.abc import Callable
from typing import Final

_SIZES: Final = tuple(2**bits for bits in range(20, 7, -1))


def most_bytes(largest: int, refusal: Callable[[int], str | None]) -> int | None:
    """Return the first size that is not refused, ``None`` if it is ``largest`` itself.

    Smaller ones are powers of two, as limits are.
    """
    sizes = (largest, *(size for size in _SIZES if size < largest))
    found = next((size for size in sizes if refusal(size) is None), 0)
    return None if found == largest else found
