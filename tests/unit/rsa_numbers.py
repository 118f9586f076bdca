"""Finds the primes of the tests of RSA keys, once, since that takes a minute.

``python -m tests.unit.rsa_numbers`` writes ``rsa_numbers.json`` beside it: integers in hexadecimal.
"""

import itertools
import json
import secrets
from math import gcd, isqrt, prod
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")
DISTANCE_BITS = (511, 515, 600, 923)

SMALL_PRIMES = [n for n in range(2, 2000) if all(n % f for f in range(2, isqrt(n) + 1))]
SIEVE = prod(SMALL_PRIMES)


def is_probable_prime(n: int) -> bool:
    if gcd(n, SIEVE) != 1:
        return False
    return all(pow(base, n - 1, n) == 1 for base in (2, 3))


def next_prime(n: int) -> int:
    """The next prime p after ``n`` with p - 1 not a multiple of 3, 17 or 65537."""
    return next(
        candidate
        for candidate in itertools.count(n | 1, 2)
        if gcd(candidate - 1, 3 * 17 * 65537) == 1 and is_probable_prime(candidate)
    )


def random_prime(bits: int) -> int:
    """A prime whose top two bits are set, so that products have the full length."""
    return next_prime(secrets.randbits(bits - 2) | 3 << bits - 2)


def roca_prime(bits: int) -> int:
    """A prime k*M + (65537**a mod M) as the faulty RSALib made them: M of the first 126 primes."""
    modulus = prod(SMALL_PRIMES[:126])
    low, high = (3 << bits - 2) // modulus, (1 << bits) // modulus
    while True:
        k, a = low + 1 + secrets.randbelow(high - low - 2), secrets.randbits(64)
        candidate = k * modulus + pow(65537, a, modulus)
        if is_probable_prime(candidate) and gcd(candidate - 1, 65537) == 1:
            return candidate


def factors_of_a_composite() -> tuple[int, int]:
    """Two primes whose product fits e = 65537 as if it were a prime of 1024 bits itself.

    Its two highest bits are set, as those of ``random_prime`` are, so that a modulus has 2048 bits.
    """
    pairs = ((random_prime(512), random_prime(512)) for _ in itertools.count())
    return next((r, s) for r, s in pairs if r * s >> 1022 == 3 and gcd(r * s - 1, 65537) == 1)


def numbers() -> dict[str, int]:
    """All of them: those of ``p`` and ``q`` fit e = 3, 17 and 65537."""
    p, q = random_prime(1024), random_prime(1024)
    r, s = factors_of_a_composite()
    return {
        "p": p,
        "q": q,
        "next to p": next_prime(p + 2),
        **{f"p + 2**{bits}": next_prime(p + 2**bits) for bits in DISTANCE_BITS},
        "p - 2**924 - 2**900": next_prime(p - 2**924 - 2**900),
        "r": r,
        "s": s,
        "smallest": next_prime(3 << 1022),
        "smallest + 2**1000": next_prime((3 << 1022) + (1 << 1000)),
        "of 256 bits": random_prime(256),
        "of 1800 bits": random_prime(1800),
        "of 2048 bits": random_prime(2048),
        "first of ROCA": roca_prime(1024),
        "second of ROCA": roca_prime(1024),
    }


if __name__ == "__main__":
    found = {name: f"{value:x}" for name, value in numbers().items()}
    FILE.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
