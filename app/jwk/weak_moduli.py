"""RSA moduli that whoever has the public key can factor. All here is public."""

from collections.abc import Mapping
from math import gcd, isqrt, prod
from types import MappingProxyType
from typing import Final

FERMAT_STEPS: Final = 100

_SMALL_PRIMES: Final = tuple(
    n for n in range(2, 1024) if all(n % factor for factor in range(2, isqrt(n) + 1))
)
_SMALL_PRIMES_PRODUCT: Final = prod(_SMALL_PRIMES)
# The shortest keys of CVE-2017-15361 have M = the product of the primes up to this, which divides
# the M of all longer ones.
_ROCA_PRIME_MAX: Final = 167
_ROCA_GENERATOR: Final = 65537
_ROCA_RESIDUES: Final[Mapping[int, frozenset[int]]] = MappingProxyType(
    {
        prime: frozenset(pow(_ROCA_GENERATOR, exponent, prime) for exponent in range(prime))
        for prime in _SMALL_PRIMES
        if prime <= _ROCA_PRIME_MAX
    }
)


def has_small_factor(n: int) -> bool:
    """Tell whether a prime of less than 1024 divides ``n``."""
    return gcd(n, _SMALL_PRIMES_PRODUCT) != 1


def has_roca_fingerprint(n: int) -> bool:
    """Tell whether ``n`` is a power of 65537 modulo each ROCA prime.

    The faulty generator made primes k*M + (65537**a mod M), so their product is such a power too
    (Nemec et al., The Return of Coppersmith's Attack, 2017); of sound moduli 1 in 2**27 is.
    """
    return all(n % prime in residues for prime, residues in _ROCA_RESIDUES.items())


def has_close_factors(n: int) -> bool:
    """Tell whether Fermat's method finds the factors of ``n`` in a few steps."""
    first = isqrt(n) + 1
    return any(
        isqrt(square) ** 2 == square
        for square in (root * root - n for root in range(first, first + FERMAT_STEPS))
    )
