"""RSA keys (RFC 7518 §6.3)."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from cryptography.hazmat.primitives.asymmetric import rsa

from app.errors import BadRequest
from app.jose import encoding
from app.jwk import weak_moduli
from app.jwk.factors import factors
from app.jwk.key_type import PairType, Sizes
from app.jwk.members import REFUSED, Members, Octets, require, require_given
from app.jwk.primality import require_primes
from hsm import KeySpec

Numbers = TypeVar("Numbers", bound="_PublicNumbers")

SIZES: Final = Sizes(generated=(2048, 3072, 4096), imported=range(2048, 4096 + 1))
EXPONENT_MIN: Final = 65537
EXPONENT_BITS_MAX: Final = 256  # e < 2**256 (FIPS 186-5 §A.1.1)
# OpenSSL, which the service and SoftHSM call, uses no longer exponent with a longer modulus
# (OPENSSL_RSA_MAX_PUBEXP_BITS, OPENSSL_RSA_SMALL_MODULUS_BITS).
LONG_MODULUS_BITS: Final = 3072
EXPONENT_BITS_MAX_OF_LONG: Final = 64
# Elliptic-curve factoring finds a prime by its own size; 512 bits is far beyond its reach.
PRIME_BITS_SHARE: Final = 4
CLOSE_BITS: Final = 100  # |p - q| > 2**(nlen/2 - 100) (FIPS 186-5 §A.1.1)

_PUBLIC: Final = ("n", "e")
_COMPUTED: Final = ("p", "q", "dp", "dq", "qi")
_PRIVATE: Final = ("d", *_COMPUTED)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _PublicNumbers:
    """The two public integers of RFC 7518 §6.3.1."""

    n: int
    e: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _Numbers(_PublicNumbers):
    """The eight integers of RFC 7518 §6.3; no ``repr``, for most are secret."""

    d: int
    p: int
    q: int
    dp: int
    dq: int
    qi: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demand(Generic[Numbers]):
    """One condition that the members must meet, and what is wrong when they do not."""

    holds: Callable[[Numbers], bool]
    description: str


# In this order: each row may rely on the rows above it, and the cheap ones come first.
_PUBLIC_DEMANDS: Final[tuple[_Demand[_PublicNumbers], ...]] = (
    _Demand(
        holds=lambda key: key.e % 2 == 1 and key.e >= EXPONENT_MIN,
        description="Field 'e' must be odd and at least 65537",
    ),
    _Demand(
        holds=lambda key: key.e.bit_length() <= EXPONENT_BITS_MAX,
        description="Field 'e' must be less than 2**256",
    ),
    _Demand(
        holds=lambda key: (
            key.n.bit_length() <= LONG_MODULUS_BITS
            or key.e.bit_length() <= EXPONENT_BITS_MAX_OF_LONG
        ),
        description="Field 'e' must be less than 2**64 where 'n' has more than 3072 bits",
    ),
    _Demand(
        holds=lambda key: not weak_moduli.has_small_factor(key.n),
        description="Field 'n' is a weak modulus: it has a small factor",
    ),
    _Demand(
        holds=lambda key: not weak_moduli.has_roca_fingerprint(key.n),
        description="Field 'n' is a weak modulus: it has the fingerprint of CVE-2017-15361 (ROCA)",
    ),
)
_PRIVATE_DEMANDS: Final[tuple[_Demand[_Numbers], ...]] = (
    _Demand(
        holds=lambda key: key.p * key.q == key.n,
        description="Fields 'p' and 'q' are not the factors of 'n'",
    ),
    _Demand(
        holds=lambda key: min(key.p, key.q).bit_length() * PRIME_BITS_SHARE >= key.n.bit_length(),
        description="Fields 'p' and 'q' are too different in size",
    ),
    _Demand(
        holds=lambda key: key.p != key.q,
        description="Fields 'p' and 'q' must be different",
    ),
    _Demand(
        holds=lambda key: not _are_close(key),
        description="Field 'n' is a weak modulus: 'p' and 'q' are too close",
    ),
    _Demand(
        holds=lambda key: key.d < key.n and _inverts_e(key),
        description="Field 'd' is not the private exponent of 'e'",
    ),
    _Demand(
        holds=lambda key: key.dp == key.d % (key.p - 1),
        description="Field 'dp' does not match 'd' and 'p'",
    ),
    _Demand(
        holds=lambda key: key.dq == key.d % (key.q - 1),
        description="Field 'dq' does not match 'd' and 'q'",
    ),
    _Demand(
        holds=lambda key: key.qi < key.p and key.qi * key.q % key.p == 1,
        description="Field 'qi' does not match 'p' and 'q'",
    ),
)


def _read_private(_spec: KeySpec, members: Members) -> rsa.RSAPrivateKey:
    """Return the key of the eight ``members``, big-endian (RFC 7518 §6.3.1, §6.3.2).

    Of those from ``p`` on there are all or none (§6.3.2); then they are computed.

    Leading zero octets, which §2 forbids and Java's ``BigInteger`` sends, are accepted; sizes are
    counted in bits. ``n`` must have 2048 to 4096, and no member more than ``n``.
    """
    is_short = all(members.get(name) is None for name in _COMPUTED)
    names = _PUBLIC + (_PRIVATE[:1] if is_short else _PRIVATE)
    octets = {name: require_given(members, name, "an RSA key") for name in names}
    _require_sizes(octets)
    numbers = {name: int.from_bytes(value) for name, value in octets.items()}
    _require_all(_PUBLIC_DEMANDS, _PublicNumbers(n=numbers["n"], e=numbers["e"]))
    key = _completed(**numbers) if is_short else _Numbers(**numbers)
    _require_all(_PRIVATE_DEMANDS, key)
    return _key_of(key)


def _completed(n: int, e: int, d: int) -> _Numbers:
    """Return the key of the three numbers that the others follow from."""
    found = factors(n, e, d)
    if found is None:
        raise BadRequest("Field 'd' is not the private exponent of 'e'")
    p, q = found
    with suppress(*REFUSED):
        qi = pow(q, -1, p)
        return _Numbers(n=n, e=e, d=d, p=p, q=q, dp=d % (p - 1), dq=d % (q - 1), qi=qi)
    raise BadRequest("Field 'n' is not a product of two prime numbers")


def _read_public(crv: str, octets: Octets) -> rsa.RSAPublicKey:
    """Return the key of ``n`` and ``e``, big-endian (RFC 7518 §6.3.1), with sizes as above."""
    _require_sizes(octets)
    key = _PublicNumbers(n=int.from_bytes(octets["n"]), e=int.from_bytes(octets["e"]))
    _require_all(_PUBLIC_DEMANDS, key)
    is_close = weak_moduli.has_close_factors(key.n)
    require(not is_close, "Field 'n' is a weak modulus: its factors are close")
    with suppress(*REFUSED):
        return _load_public(crv, octets)
    raise BadRequest("Fields 'n' and 'e' are not an RSA key")


def _load_public(_crv: str, octets: Octets) -> rsa.RSAPublicKey:
    n, e = (int.from_bytes(octets[name]) for name in _PUBLIC)
    return rsa.RSAPublicNumbers(e, n).public_key()


def _write_public(key: rsa.RSAPublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    return {"kty": "RSA", "n": _unsigned(numbers.n), "e": _unsigned(numbers.e)}


def _unsigned(value: int) -> str:
    """Return Base64urlUInt (RFC 7518 §2)."""
    return encoding.encode(value.to_bytes(max(1, (value.bit_length() + 7) // 8)))


def _require_all(demands: tuple[_Demand[Numbers], ...], key: Numbers) -> None:
    for demand in demands:
        require(demand.holds(key), demand.description)


def _require_sizes(octets: Octets) -> None:
    """Bound every member before it becomes an integer, so that arithmetic has bounded cost."""
    n_bits = _bits(octets["n"])
    require(n_bits in SIZES.imported, "Field 'n' must have 2048 to 4096 bits")
    for name in octets:
        require(_bits(octets[name]) <= n_bits, f"Field '{name}' is longer than 'n'")


def _bits(octets: bytes) -> int:
    """Return the bit length of a big-endian integer without converting it."""
    significant = octets.lstrip(b"\0")
    return int.from_bytes(significant[:1]).bit_length() + 8 * len(significant[1:])


def _are_close(key: _Numbers) -> bool:
    """Tell whether FIPS 186-5 §A.1.1 forbids |p - q|; Fermat's method finds only closer ones."""
    return abs(key.p - key.q) <= 1 << key.n.bit_length() // 2 - CLOSE_BITS


def _inverts_e(key: _Numbers) -> bool:
    """Tell whether d*e = 1 modulo lcm(p - 1, q - 1) (RFC 8017 §3.2)."""
    return key.d * key.e % (key.p - 1) == 1 and key.d * key.e % (key.q - 1) == 1


def _key_of(key: _Numbers) -> rsa.RSAPrivateKey:
    """Return the key, though nobody has asked yet whether ``p`` and ``q`` are prime."""
    with suppress(*REFUSED):
        public = rsa.RSAPublicNumbers(key.e, key.n)
        private = rsa.RSAPrivateNumbers(key.p, key.q, key.d, key.dp, key.dq, key.qi, public)
        return private.private_key(unsafe_skip_rsa_key_validation=True)
    raise BadRequest("Fields 'p' and 'q' must be prime numbers")


def _bits_of(key: rsa.RSAPrivateKey) -> int:
    return key.key_size


def _sizes(_alg: str | None) -> Sizes:
    return SIZES


RSA: Final = PairType(
    kty="RSA",
    public_members=_PUBLIC,
    private_members=(*_PRIVATE, "oth"),
    imported_members=(*_PUBLIC, "d"),
    public_keys=(rsa.RSAPublicKey,),
    read_private=_read_private,
    prove_private=require_primes,
    read_public=_read_public,
    load_public=_load_public,
    write_public=_write_public,
    encryption_alg="RSA-OAEP",
    sizes=_sizes,
    bits_of=_bits_of,
)
