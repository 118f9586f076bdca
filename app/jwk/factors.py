"""The prime factors of an RSA modulus, from its exponents (RFC 8017 §3.2)."""

from collections.abc import Iterator
from math import isqrt


def factors(n: int, e: int, d: int) -> tuple[int, int] | None:
    """Return ``p`` and ``q`` of a key, the larger one first; ``None`` if ``d`` inverts no ``e``.

    ed - 1 is a multiple m/g of phi = (p - 1)(q - 1), where g divides p - 1 and q - 1. As phi is
    nearly n, m/g is nearly (ed - 1)/n, and so one of its convergents: no power is computed.
    """
    product = e * d - 1
    for m, g in _convergents(product, n):
        phi, rest = divmod(g * product, m) if m else (0, 1)
        total = n + 1 - phi  # p + q
        square = total * total - 4 * n  # (p - q)**2
        if rest or total <= 0 or square < 0:
            continue
        difference = isqrt(square)
        p, q = (total + difference) // 2, (total - difference) // 2
        if p * q == n and q > 1:
            return p, q
    return None


def _convergents(numerator: int, denominator: int) -> Iterator[tuple[int, int]]:
    """Yield those of the continued fraction of a quotient, with small denominators."""
    largest = isqrt(isqrt(denominator))
    before, now = (0, 1), (1, 0)
    while denominator and now[1] <= largest:
        whole, rest = divmod(numerator, denominator)
        before, now = now, (whole * now[0] + before[0], whole * now[1] + before[1])
        yield now
        numerator, denominator = denominator, rest
