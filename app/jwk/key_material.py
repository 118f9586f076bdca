"""Key material of a JWK (RFC 7518 §6), checked before any token sees it: tokens do not.

Every function here is pure, and everything it refuses is a ``BadRequest`` whose description names
the member at fault and never shows its value.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import gcd, isqrt, prod
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa, x25519

import hsm
from app.errors import BadRequest
from app.jwk import edwards25519

Numbers = TypeVar("Numbers", bound="_RsaNumbers")
Result = TypeVar("Result")

# What ``cryptography`` raises for bad keys. ``suppress`` and a ``raise`` after it, unlike ``raise
# from None``, leave no ``__context__`` whose traceback would keep the members of the key alive.
_REFUSED: Final = (ValueError, OverflowError, UnsupportedAlgorithm, InternalError)


def _require(condition: bool, description: str) -> None:
    """Raise ``BadRequest`` unless ``condition`` holds."""
    if not condition:
        raise BadRequest(description)


def _require_bytes(name: str, octets: bytes, size_bytes: int) -> None:
    """Raise ``BadRequest`` unless member ``name`` is exactly ``size_bytes`` long."""
    _require(len(octets) == size_bytes, f"Field '{name}' must be exactly {size_bytes} bytes")


def _require_public(name: str, octets: bytes | None, computed: bytes) -> None:
    """Raise ``BadRequest`` if a public member is given and is not what ``d`` computes to."""
    if octets is not None:
        _require_bytes(name, octets, len(computed))
        _require(octets == computed, f"Field '{name}' does not match the private key 'd'")


# --- oct (RFC 7518 §6.4) ---

HMAC_KEY_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSize:
    """How many bytes ``k`` may have for one ``alg``, and how to say so."""

    allowed_bytes: range
    demand: str


def _exactly(size_bytes: int) -> SecretSize:
    """Return the row of an AES key (FIPS 197)."""
    allowed_bytes = range(size_bytes, size_bytes + 1)
    return SecretSize(allowed_bytes=allowed_bytes, demand=f"exactly {size_bytes}")


def _at_least(hash_bytes: int) -> SecretSize:
    """Return the row of an HMAC key: no shorter than the hash (RFC 7518 §3.2)."""
    return SecretSize(
        allowed_bytes=range(hash_bytes, HMAC_KEY_BYTES_MAX + 1),
        demand=f"{hash_bytes} to {HMAC_KEY_BYTES_MAX}",
    )


SECRET_SIZES: Final[Mapping[str, SecretSize]] = MappingProxyType(
    {name: _exactly(row.key_bytes) for name, row in hsm.CONTENT_ENCRYPTIONS.items()}
    | {name: _exactly(row.key_bytes) for name, row in hsm.KEY_WRAPPINGS.items()}
    | {name: _at_least(row.mac_bytes) for name, row in hsm.MACS.items()}
)


def secret(alg: str, k: bytes) -> bytes:
    """Return ``k`` if it has a size that ``alg`` permits (RFC 7518 §3.2, §4.4, §5.3)."""
    if (size := SECRET_SIZES.get(alg)) is None:
        raise BadRequest(f"Algorithm '{alg}' is not compatible with key type 'oct'.")
    _require(len(k) in size.allowed_bytes, f"Field 'k' must be {size.demand} bytes for {alg}")
    return k


# --- EC (RFC 7518 §6.2) and OKP (RFC 8037 §2) ---

ED25519_BYTES: Final = 32
_UNCOMPRESSED: Final = b"\x04"
X25519_BYTES: Final = 32


def ec_private_key(
    crv: str, d: bytes, x: bytes | None, y: bytes | None
) -> ec.EllipticCurvePrivateKey:
    """Return the key of the scalar ``d``, ceil(log2(n)/8) bytes long (RFC 7518 §6.2.2.1).

    ``x`` and ``y`` are compared with the computed point, each if given (§6.2.1.2, §6.2.1.3); a
    point off the curve is never used for anything.
    """
    curve = _weierstrass(crv)
    size_bytes = (curve.key_size + 7) // 8
    _require_bytes("d", d, size_bytes)
    private_key = _ec_scalar(curve, int.from_bytes(d))
    point = private_key.public_key().public_numbers()
    _require_public("x", x, point.x.to_bytes(size_bytes))
    _require_public("y", y, point.y.to_bytes(size_bytes))
    return private_key


def _weierstrass(crv: str) -> ec.EllipticCurve:
    if crv not in hsm.WEIERSTRASS_CURVES:
        known = ", ".join(hsm.WEIERSTRASS_CURVES)
        raise BadRequest(f"Field 'crv' must be one of these for key type 'EC': {known}")
    return hsm.WEIERSTRASS_CURVES[crv]


def _ec_scalar(curve: ec.EllipticCurve, d: int) -> ec.EllipticCurvePrivateKey:
    """Return the key of ``d`` if 1 <= d < n (SEC 1 §3.2.1)."""
    with suppress(*_REFUSED):
        if 1 <= d < curve.group_order:
            return ec.derive_private_key(d, curve)
    raise BadRequest("Field 'd' is not a private key of the curve")


def ec_public_key(crv: str, x: bytes, y: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of a point, which must be on the curve, and reduced (RFC 7518 §6.2.1)."""
    curve = _weierstrass(crv)
    size_bytes = (curve.key_size + 7) // 8
    _require_bytes("x", x, size_bytes)
    _require_bytes("y", y, size_bytes)
    with suppress(*_REFUSED):
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, _UNCOMPRESSED + x + y)
    raise BadRequest("Fields 'x' and 'y' are not a point of the curve")


def ed25519_public_key(crv: str, x: bytes) -> ed25519.Ed25519PublicKey:
    """Return the key of a point, which must be on the curve and of large order (RFC 8032 §5.1.3).

    For a point of small order signatures can be made that hold for many messages.
    """
    _require(crv == "Ed25519", "Field 'crv' must be Ed25519 for key type 'OKP'")
    _require_bytes("x", x, ED25519_BYTES)
    _require(edwards25519.is_public_key(x), "Field 'x' is not a public key of the curve")
    return _read(ed25519.Ed25519PublicKey.from_public_bytes, x, "x", "a public key of the curve")


def ml_dsa_public_key(pub: bytes) -> mldsa.MLDSA44PublicKey:
    """Return the key of ``pub`` (FIPS 204); any octets of its size are a key."""
    return _read(mldsa.MLDSA44PublicKey.from_public_bytes, pub, "pub", "an ML-DSA-44 public key")


def ed25519_private_key(d: bytes, x: bytes | None) -> ed25519.Ed25519PrivateKey:
    """Return the key of the 32-byte seed ``d`` (RFC 8032 §5.1.5); any seed is a key."""
    _require_bytes("d", d, ED25519_BYTES)
    private_key = _read(
        ed25519.Ed25519PrivateKey.from_private_bytes, d, "d", "an Ed25519 private key"
    )
    _require_public("x", x, private_key.public_key().public_bytes_raw())
    return private_key


def x25519_private_key(d: bytes, x: bytes | None) -> x25519.X25519PrivateKey:
    """Return the key of the 32 bytes ``d`` (RFC 7748 §5); any are a key."""
    _require_bytes("d", d, X25519_BYTES)
    private_key = _read(x25519.X25519PrivateKey.from_private_bytes, d, "d", "an X25519 private key")
    _require_public("x", x, private_key.public_key().public_bytes_raw())
    return private_key


def _read(read: Callable[[bytes], Result], octets: bytes, name: str, expected: str) -> Result:
    """Return what ``read`` makes of ``octets``, unless the library lacks it, as in FIPS mode."""
    with suppress(*_REFUSED):
        return read(octets)
    raise BadRequest(f"Field '{name}' is not {expected}")


# --- RSA (RFC 7518 §6.3) ---

RSA_MEMBERS: Final = ("n", "e", "d", "p", "q", "dp", "dq", "qi")
MODULUS_BITS: Final = range(2048, 4096 + 1)
EXPONENT_MIN: Final = 65537
EXPONENT_BITS_MAX: Final = 256  # e < 2**256 (FIPS 186-5 §A.1.1)
# Elliptic-curve factoring finds a prime by its own size; 512 bits is far beyond its reach.
PRIME_BITS_SHARE: Final = 4
FERMAT_STEPS: Final = 100
CLOSE_BITS: Final = 100  # |p - q| > 2**(nlen/2 - 100) (FIPS 186-5 §A.1.1)

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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _RsaNumbers:
    """The two public integers of RFC 7518 §6.3.1."""

    n: int
    e: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _RsaMembers(_RsaNumbers):
    """The eight integers of RFC 7518 §6.3; no ``repr``, for most are secret."""

    d: int
    p: int
    q: int
    dp: int
    dq: int
    qi: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _RsaDemand(Generic[Numbers]):
    """One condition that the members must meet, and what is wrong when they do not."""

    holds: Callable[[Numbers], bool]
    description: str


# In this order: each row may rely on the rows above it, and the cheap ones come first.
_PUBLIC_RSA_DEMANDS: Final[tuple[_RsaDemand[_RsaNumbers], ...]] = (
    _RsaDemand(
        holds=lambda key: key.e % 2 == 1 and key.e >= EXPONENT_MIN,
        description="Field 'e' must be odd and at least 65537",
    ),
    _RsaDemand(
        holds=lambda key: key.e.bit_length() <= EXPONENT_BITS_MAX,
        description="Field 'e' must be less than 2**256",
    ),
    _RsaDemand(
        holds=lambda key: gcd(key.n, _SMALL_PRIMES_PRODUCT) == 1,
        description="Field 'n' is a weak modulus: it has a small factor",
    ),
    _RsaDemand(
        holds=lambda key: not _has_roca_fingerprint(key.n),
        description="Field 'n' is a weak modulus: it has the fingerprint of CVE-2017-15361 (ROCA)",
    ),
)
_PRIVATE_RSA_DEMANDS: Final[tuple[_RsaDemand[_RsaMembers], ...]] = (
    _RsaDemand(
        holds=lambda key: key.p * key.q == key.n,
        description="Fields 'p' and 'q' are not the factors of 'n'",
    ),
    _RsaDemand(
        holds=lambda key: min(key.p, key.q).bit_length() * PRIME_BITS_SHARE >= key.n.bit_length(),
        description="Fields 'p' and 'q' are too different in size",
    ),
    _RsaDemand(
        holds=lambda key: key.p != key.q,
        description="Fields 'p' and 'q' must be different",
    ),
    _RsaDemand(
        holds=lambda key: not _are_close(key),
        description="Field 'n' is a weak modulus: 'p' and 'q' are too close",
    ),
    _RsaDemand(
        holds=lambda key: key.d < key.n and _inverts_e(key),
        description="Field 'd' is not the private exponent of 'e'",
    ),
    _RsaDemand(
        holds=lambda key: key.dp == key.d % (key.p - 1),
        description="Field 'dp' does not match 'd' and 'p'",
    ),
    _RsaDemand(
        holds=lambda key: key.dq == key.d % (key.q - 1),
        description="Field 'dq' does not match 'd' and 'q'",
    ),
    _RsaDemand(
        holds=lambda key: key.qi < key.p and key.qi * key.q % key.p == 1,
        description="Field 'qi' does not match 'p' and 'q'",
    ),
)


def rsa_private_key(members: Mapping[str, bytes | None]) -> rsa.RSAPrivateKey:
    """Return the key of the eight ``members``, big-endian (RFC 7518 §6.3.1, §6.3.2).

    Leading zero octets, which §2 forbids and Java's ``BigInteger`` sends, are accepted; sizes are
    counted in bits. ``n`` must have 2048 to 4096, and no member more than ``n``.
    """
    octets = {name: _given(name, members.get(name)) for name in RSA_MEMBERS}
    _require_sizes(octets)
    key = _RsaMembers(**{name: int.from_bytes(value) for name, value in octets.items()})
    _require_all(_PUBLIC_RSA_DEMANDS, key)
    _require_all(_PRIVATE_RSA_DEMANDS, key)
    return _rsa_primes(key)


def rsa_public_key(n: bytes, e: bytes) -> rsa.RSAPublicKey:
    """Return the key of ``n`` and ``e``, big-endian (RFC 7518 §6.3.1), with sizes as above."""
    _require_sizes({"n": n, "e": e})
    key = _RsaNumbers(n=int.from_bytes(n), e=int.from_bytes(e))
    _require_all(_PUBLIC_RSA_DEMANDS, key)
    _require(not _has_close_factors(key.n), "Field 'n' is a weak modulus: its factors are close")
    with suppress(*_REFUSED):
        return rsa.RSAPublicNumbers(key.e, key.n).public_key()
    raise BadRequest("Fields 'n' and 'e' are not an RSA key")


def _require_all(demands: tuple[_RsaDemand[Numbers], ...], key: Numbers) -> None:
    for demand in demands:
        _require(demand.holds(key), demand.description)


def _given(name: str, octets: bytes | None) -> bytes:
    """Return the member; raise ``BadRequest`` if it is absent."""
    if octets is None:
        raise BadRequest(f"Field '{name}' is required to import an RSA key")
    return octets


def _require_sizes(octets: Mapping[str, bytes]) -> None:
    """Bound every member before it becomes an integer, so that arithmetic has bounded cost."""
    n_bits = _bits(octets["n"])
    _require(n_bits in MODULUS_BITS, "Field 'n' must have 2048 to 4096 bits")
    for name in octets:
        _require(_bits(octets[name]) <= n_bits, f"Field '{name}' is longer than 'n'")


def _bits(octets: bytes) -> int:
    """Return the bit length of a big-endian integer without converting it."""
    significant = octets.lstrip(b"\0")
    return int.from_bytes(significant[:1]).bit_length() + 8 * len(significant[1:])


def _has_roca_fingerprint(n: int) -> bool:
    """Tell whether ``n`` is a power of 65537 modulo each ROCA prime.

    The faulty generator made primes k*M + (65537**a mod M), so their product is such a power too
    (Nemec et al., The Return of Coppersmith's Attack, 2017); of sound moduli 1 in 2**27 is.
    """
    return all(n % prime in residues for prime, residues in _ROCA_RESIDUES.items())


def _are_close(key: _RsaMembers) -> bool:
    """Tell whether FIPS 186-5 §A.1.1 forbids |p - q|; Fermat's method finds only closer ones."""
    return abs(key.p - key.q) <= 1 << key.n.bit_length() // 2 - CLOSE_BITS


def _has_close_factors(n: int) -> bool:
    """Tell whether Fermat's method finds the factors of ``n`` in a few steps."""
    first = isqrt(n) + 1
    return any(
        isqrt(square) ** 2 == square
        for square in (root * root - n for root in range(first, first + FERMAT_STEPS))
    )


def _inverts_e(key: _RsaMembers) -> bool:
    """Tell whether d*e = 1 modulo lcm(p - 1, q - 1) (RFC 8017 §3.2)."""
    return key.d * key.e % (key.p - 1) == 1 and key.d * key.e % (key.q - 1) == 1


def _rsa_primes(key: _RsaMembers) -> rsa.RSAPrivateKey:
    """Return the key once OpenSSL found ``p`` and ``q`` prime; takes 30 ms, 230 ms at 4096 bits."""
    with suppress(*_REFUSED):
        public = rsa.RSAPublicNumbers(key.e, key.n)
        private = rsa.RSAPrivateNumbers(key.p, key.q, key.d, key.dp, key.dq, key.qi, public)
        return private.private_key(unsafe_skip_rsa_key_validation=False)
    raise BadRequest("Fields 'p' and 'q' must be prime numbers")
