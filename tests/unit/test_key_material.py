"""Key material of imports. Primes that take long to find are in ``rsa_numbers.json``."""

import base64
import itertools
import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from math import gcd, isqrt, lcm
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

import app.jwk.rsa
from app.errors import BadRequest
from app.jwk.ec import EC
from app.jwk.oct import OCT
from app.jwk.okp import OKP
from app.jwk.rsa import RSA
from hsm import KeySpec
from tests.shared.examples import examples
from tests.shared.sealing import CEK_BYTES
from tests.unit.rsa_numbers import DISTANCE_BITS, FILE

Members = Mapping[str, bytes | None]

NUMBERS = json.loads(FILE.read_text("utf-8"))
MEMBERS = ("n", "e", "d", "p", "q", "dp", "dq", "qi")
HASH_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
CURVES = {
    "P-256": (ec.SECP256R1(), 32),
    "P-384": (ec.SECP384R1(), 48),
    "P-521": (ec.SECP521R1(), 66),
    "secp256k1": (ec.SECP256K1(), 32),
}
ORDERS = {
    "secp256k1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    "P-256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "P-384": int("F" * 48 + "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16),
    "P-521": int(
        "1F" + "F" * 64 + "A51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409", 16
    ),
}

every_curve = pytest.mark.parametrize("crv", CURVES)
every_member = pytest.mark.parametrize("name", MEMBERS)
randomly = settings(max_examples=examples(120))


def octets(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8)


# --- oct ---


def secret(alg: str, k: bytes) -> bytes:
    key = OCT.read_private(KeySpec(kty="oct", alg=alg), {"k": k})
    assert isinstance(key, bytes)
    return key


@pytest.mark.parametrize(("alg", "size"), CEK_BYTES.items())
def test_an_aes_key_of_the_exact_size_is_returned_unchanged(alg: str, size: int) -> None:
    k = secrets.token_bytes(size)
    assert secret(alg, k) == k


@pytest.mark.parametrize("delta", [-16, -8, -1, 1, 8])
@pytest.mark.parametrize(("alg", "size"), CEK_BYTES.items())
def test_an_aes_key_of_any_other_size_is_refused(alg: str, size: int, delta: int) -> None:
    with pytest.raises(BadRequest, match=f"Field 'k' must be exactly {size} bytes for {alg}"):
        secret(alg, bytes(size + delta))


@pytest.mark.parametrize(("alg", "size"), HASH_BYTES.items())
def test_an_hmac_key_may_be_as_long_as_the_hash_and_up_to_4096_bytes(alg: str, size: int) -> None:
    for accepted in (size, size + 1, 4096):
        assert secret(alg, bytes(accepted)) == bytes(accepted)


@pytest.mark.parametrize(("alg", "size"), HASH_BYTES.items())
def test_an_hmac_key_shorter_than_the_hash_or_longer_than_4096_bytes_is_refused(
    alg: str, size: int
) -> None:
    for refused in (0, size - 1, 4097):
        with pytest.raises(BadRequest, match=f"Field 'k' must be {size} to 4096 bytes for {alg}"):
            secret(alg, bytes(refused))


@pytest.mark.parametrize("alg", ["none", "", "A256GCMKW ", "hs256", "RS256", "dir"])
def test_an_algorithm_without_secret_keys_is_refused(alg: str) -> None:
    with pytest.raises(BadRequest, match=f"'{alg}' is not compatible with key type 'oct'"):
        secret(alg, bytes(32))


# --- EC ---


def ec_members(crv: str, d: int | None = None) -> dict[str, bytes]:
    curve, size = CURVES[crv]
    key = ec.generate_private_key(curve) if d is None else ec.derive_private_key(d, curve)
    numbers = key.private_numbers()
    point = numbers.public_numbers
    return {
        "d": numbers.private_value.to_bytes(size),
        "x": point.x.to_bytes(size),
        "y": point.y.to_bytes(size),
    }


def ec_import(crv: str, **members: bytes | None) -> ec.EllipticCurvePrivateKey:
    key = EC.read_private(KeySpec(kty="EC", crv=crv), members)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def ed25519_import(d: bytes, x: bytes | None) -> ed25519.Ed25519PrivateKey:
    key = OKP.read_private(KeySpec(kty="OKP", crv="Ed25519"), {"d": d, "x": x})
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return key


def rsa_import(members: Members) -> rsa.RSAPrivateKey:
    key = read_rsa(members)
    assert RSA.prove_private
    RSA.prove_private(key)
    return key


def read_rsa(members: Members) -> rsa.RSAPrivateKey:
    key = RSA.read_private(KeySpec(kty="RSA"), members)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def flipped(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


@every_curve
def test_an_ec_key_is_imported_with_or_without_its_point(crv: str) -> None:
    key = ec_members(crv)
    expected = int.from_bytes(key["d"])
    for given_members in (("d",), ("d", "x"), ("d", "y"), ("d", "x", "y")):
        imported = ec_import(crv, **{name: key[name] for name in given_members})
        assert imported.private_numbers().private_value == expected
        assert imported.curve.name == CURVES[crv][0].name


@every_curve
def test_the_smallest_and_the_largest_scalar_are_accepted(crv: str) -> None:
    for d in (1, ORDERS[crv] - 1):
        imported = ec_import(crv, **ec_members(crv, d))
        assert imported.private_numbers().private_value == d


@every_curve
def test_a_scalar_outside_the_order_is_refused(crv: str) -> None:
    size = CURVES[crv][1]
    for d in (0, ORDERS[crv], ORDERS[crv] + 1, ORDERS[crv] + 5, 2 ** (8 * size) - 1):
        with pytest.raises(BadRequest, match="Field 'd' is not a private key of the curve"):
            ec_import(crv, d=d.to_bytes(size))


@every_curve
def test_the_library_is_never_asked_for_a_scalar_outside_the_order(
    crv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ec, "derive_private_key", lambda *_: pytest.fail("asked"))
    for d in (0, ORDERS[crv], ORDERS[crv] + 1):
        with pytest.raises(BadRequest):
            ec_import(crv, d=d.to_bytes(CURVES[crv][1]))


@every_curve
def test_a_scalar_one_byte_short_or_long_is_refused(crv: str) -> None:
    size = CURVES[crv][1]
    key = ec_members(crv)
    for d in (b"", b"\x01" * (size - 1), b"\0" + key["d"], key["d"] + b"\0"):
        with pytest.raises(BadRequest, match=f"Field 'd' must be exactly {size} bytes"):
            ec_import(crv, d=d)


@pytest.mark.parametrize("name", ["x", "y"])
@every_curve
def test_a_coordinate_of_another_point_is_refused(crv: str, name: str) -> None:
    key, other = ec_members(crv), ec_members(crv)
    for wrong in (flipped(key[name]), other[name], bytes(len(key[name]))):
        for members in (key | {name: wrong}, {"d": key["d"], name: wrong}):
            with pytest.raises(BadRequest, match=f"Field '{name}' does not match"):
                ec_import(crv, **members)


@pytest.mark.parametrize("name", ["x", "y"])
@every_curve
def test_a_coordinate_of_the_wrong_length_is_refused(crv: str, name: str) -> None:
    key, size = ec_members(crv), CURVES[crv][1]
    for wrong in (b"", key[name][:-1], key[name][1:], b"\0" + key[name], key[name] + b"\0"):
        with pytest.raises(BadRequest, match=f"Field '{name}' must be exactly {size} bytes"):
            ec_import(crv, **(key | {name: wrong}))


@every_curve
def test_swapped_coordinates_are_refused(crv: str) -> None:
    key = ec_members(crv)
    with pytest.raises(BadRequest, match="Field 'x' does not match"):
        ec_import(crv, d=key["d"], x=key["y"], y=key["x"])


@every_curve
def test_the_mirrored_point_is_refused(crv: str) -> None:
    key = ec_members(crv)
    mirrored = ec_members(crv, ORDERS[crv] - int.from_bytes(key["d"]))
    assert mirrored["x"] == key["x"]
    with pytest.raises(BadRequest, match="Field 'y' does not match"):
        ec_import(crv, d=key["d"], x=key["x"], y=mirrored["y"])


@pytest.mark.parametrize("crv", ["P-224", "P-256K", "p-256", "Ed25519", ""])
def test_an_unknown_curve_is_refused(crv: str) -> None:
    with pytest.raises(BadRequest, match="'crv' must be one of these for key type 'EC'"):
        ec_import(crv, d=bytes(32))


# --- OKP ---


def test_an_ed25519_key_is_imported_with_or_without_its_public_key() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    d, x = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    for given_x in (None, x):
        assert ed25519_import(d, given_x).private_bytes_raw() == d


@pytest.mark.parametrize("size", [0, 31, 33, 57, 64])
def test_an_ed25519_seed_of_any_other_length_is_refused(size: int) -> None:
    with pytest.raises(BadRequest, match="Field 'd' must be exactly 32 bytes"):
        ed25519_import(bytes(size), None)


def test_an_ed25519_public_key_that_is_not_of_the_seed_is_refused() -> None:
    key, other = (ed25519.Ed25519PrivateKey.generate() for _ in range(2))
    right, wrong = key.public_key().public_bytes_raw(), other.public_key().public_bytes_raw()
    for x in (wrong, flipped(right), bytes(32)):
        with pytest.raises(BadRequest, match="Field 'x' does not match"):
            ed25519_import(key.private_bytes_raw(), x)
    for x in (b"", right[:-1], right + b"\0", b"\0" + right):
        with pytest.raises(BadRequest, match="Field 'x' must be exactly 32 bytes"):
            ed25519_import(key.private_bytes_raw(), x)


# --- RSA: the keys ---


def members_of(key: rsa.RSAPrivateKey) -> dict[str, bytes]:
    numbers = key.private_numbers()
    public = numbers.public_numbers
    values = (public.n, public.e, numbers.d, numbers.p, numbers.q)
    crt = (numbers.dmp1, numbers.dmq1, numbers.iqmp)
    return {name: octets(value) for name, value in zip(MEMBERS, values + crt, strict=True)}


def members_from(p: int, q: int, e: int = 65537, order: int | None = None) -> dict[str, bytes]:
    """All eight members that follow from ``p`` and ``q``, prime or not, weak or not."""
    d = pow(e, -1, order or lcm(p - 1, q - 1))
    values = (p * q, e, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    return {name: octets(value) for name, value in zip(MEMBERS, values, strict=True)}


def number(name: str) -> int:
    return int(NUMBERS[name], 16)


@cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@pytest.fixture(scope="session")
def good() -> dict[str, bytes]:
    return members_of(rsa_key(2048))


@pytest.fixture(scope="session")
def primes() -> tuple[int, int]:
    """Two primes of 1024 bits that fit e = 3, 17 and 65537."""
    return number("p"), number("q")


def assert_refused(members: Members, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        rsa_import(members)


# --- RSA: accepted ---


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_an_rsa_key_of_an_accepted_size_is_returned_with_all_its_members(bits: int) -> None:
    members = members_of(rsa_key(bits))
    assert members_of(rsa_import(members)) == members


@every_member
def test_leading_zero_octets_change_neither_value_nor_size(
    name: str, good: dict[str, bytes]
) -> None:
    padded = good | {name: bytes(700) + good[name]}
    assert members_of(rsa_import(padded)) == good


@pytest.mark.parametrize(
    "order", [(lambda p, q: (p - 1) * (q - 1)), (lambda p, q: lcm(p - 1, q - 1))]
)
@pytest.mark.parametrize("bits", [2048, 2049, 4096])
def test_an_rsa_key_of_both_exponents_is_completed(
    bits: int, order: Callable[[int, int], int]
) -> None:
    made = rsa_key(bits).private_numbers()
    p, q = sorted((made.p, made.q), reverse=True)
    members = members_from(p, q, order=order(p, q))
    assert members_of(rsa_import({name: members[name] for name in ("n", "e", "d")})) == members


@pytest.mark.parametrize("change", [-2, -1, 1, 2, 65536])
def test_an_rsa_key_of_another_exponent_is_not_completed(
    change: int, good: dict[str, bytes]
) -> None:
    d = octets(int.from_bytes(good["d"]) + change)
    assert_refused({"n": good["n"], "e": good["e"], "d": d}, "Field 'd' is not the private")


@pytest.mark.parametrize("name", ["p", "q", "dp", "dq", "qi"])
def test_of_the_members_that_can_be_computed_there_are_all_or_none(
    name: str, good: dict[str, bytes]
) -> None:
    members = {known: good[known] for known in ("n", "e", "d", name)}
    missing = next(one for one in ("p", "q", "dp") if one != name)
    assert_refused(members, f"Field '{missing}' is required to import an RSA key")


def test_an_unused_member_is_ignored(good: dict[str, bytes]) -> None:
    assert rsa_import(good | {"oth": b"", "k": None}).key_size == 2048


@pytest.mark.parametrize("order", ["lcm", "phi"])
def test_both_usual_private_exponents_are_accepted(order: str, primes: tuple[int, int]) -> None:
    p, q = primes
    orders = {"lcm": lcm(p - 1, q - 1), "phi": (p - 1) * (q - 1)}
    rsa_import(members_from(p, q, order=orders[order]))


def test_swapped_primes_are_accepted_when_everything_else_is_swapped_too(
    good: dict[str, bytes],
) -> None:
    p, q = int.from_bytes(good["p"]), int.from_bytes(good["q"])
    swapped = {"p": good["q"], "q": good["p"], "dp": good["dq"], "dq": good["dp"]}
    rsa_import(good | swapped | {"qi": octets(pow(p, -1, q))})


def test_a_public_exponent_just_below_the_limit_is_accepted(primes: tuple[int, int]) -> None:
    p, q = primes
    e = next(e for e in itertools.count(2**256 - 1, -2) if gcd(e, (p - 1) * (q - 1)) == 1)
    rsa_import(members_from(p, q, e))


# --- RSA: a member missing or altered ---


@every_member
def test_a_missing_member_is_named(name: str, good: dict[str, bytes]) -> None:
    reason = f"Field '{name}' is required to import an RSA key"
    assert_refused(good | {name: None}, reason)
    assert_refused({other: good[other] for other in MEMBERS if other != name}, reason)


def test_the_first_missing_member_is_the_one_named() -> None:
    for position, name in enumerate(MEMBERS):
        present = dict.fromkeys(MEMBERS[:position], b"")
        if present.keys() != {"n", "e", "d"}:  # from which the others are computed
            assert_refused(present, f"Field '{name}' is required")


@pytest.mark.parametrize("delta", [-2, -1, 1, 2])
@every_member
def test_a_member_altered_by_one_or_two_is_refused(
    name: str, delta: int, good: dict[str, bytes]
) -> None:
    assert_refused(good | {name: octets(int.from_bytes(good[name]) + delta)}, f"'{name}'|'n'")


@every_member
def test_a_member_of_zero_or_one_is_refused(name: str, good: dict[str, bytes]) -> None:
    for value in (b"", b"\0", b"\0" * 400, b"\1"):
        assert_refused(good | {name: value}, f"'{name}'")


@every_member
def test_a_member_of_all_ones_is_refused(name: str, good: dict[str, bytes]) -> None:
    assert_refused(good | {name: b"\xff" * 256}, "Field")


PERIODS: dict[str, Callable[[int, int], int]] = {
    "d": lambda p, q: p * q,
    "dp": lambda p, _: p - 1,
    "dq": lambda _, q: q - 1,
    "qi": lambda p, _: p,
}


@pytest.mark.parametrize("name", PERIODS)
def test_a_congruent_but_unreduced_member_is_refused(name: str, good: dict[str, bytes]) -> None:
    period = PERIODS[name](int.from_bytes(good["p"]), int.from_bytes(good["q"]))
    assert_refused(good | {name: octets(int.from_bytes(good[name]) + period)}, f"Field '{name}'")


def test_a_working_exponent_larger_than_the_modulus_is_refused() -> None:
    p, q = number("smallest"), number("smallest + 2**1000")
    order = lcm(p - 1, q - 1)
    members = members_from(q, p)
    d = int.from_bytes(members["d"])
    larger = d + order * ((p * q - d) // order + 1)
    assert p * q < larger < 1 << (p * q).bit_length()
    assert_refused(members | {"d": octets(larger)}, "Field 'd' is not the private exponent of 'e'")


def test_an_exponent_that_is_right_modulo_one_prime_only_is_refused(good: dict[str, bytes]) -> None:
    p, q = int.from_bytes(good["p"]), int.from_bytes(good["q"])
    for prime in (p, q):
        d = pow(65537, -1, prime - 1)
        crt = {"d": octets(d), "dp": octets(d % (p - 1)), "dq": octets(d % (q - 1))}
        assert_refused(good | crt, "Field 'd' is not the private exponent of 'e'")


def test_swapped_primes_without_the_rest_are_refused(good: dict[str, bytes]) -> None:
    swapped = good | {"p": good["q"], "q": good["p"]}
    assert_refused(swapped, "Field 'dp' does not match")
    assert_refused(swapped | {"dp": good["dq"], "dq": good["dp"]}, "Field 'qi' does not match")


def test_the_members_of_two_keys_do_not_mix(good: dict[str, bytes]) -> None:
    other = members_of(rsa.generate_private_key(65537, 2048))
    for name in set(MEMBERS) - {"e"}:
        assert_refused(good | {name: other[name]}, "Field")


# --- RSA: the public exponent ---


@pytest.mark.parametrize("e", [3, 17])
def test_a_small_public_exponent_is_refused_though_it_fits(e: int, primes: tuple[int, int]) -> None:
    assert_refused(members_from(*primes, e=e), "Field 'e' must be odd and at least 65537")


def test_a_public_exponent_of_one_is_refused(good: dict[str, bytes]) -> None:
    assert_refused(good | dict.fromkeys(("e", "d", "dp", "dq"), b"\1"), "Field 'e' must be odd")


@pytest.mark.parametrize("e", [0, 2, 65535, 65536, 65538, 2**128])
def test_an_even_or_too_small_public_exponent_is_refused(e: int, good: dict[str, bytes]) -> None:
    assert_refused(good | {"e": octets(e)}, "Field 'e' must be odd and at least 65537")


def test_a_public_exponent_of_more_than_256_bits_is_refused(primes: tuple[int, int]) -> None:
    p, q = primes
    e = next(e for e in itertools.count(2**256 + 1, 2) if gcd(e, (p - 1) * (q - 1)) == 1)
    assert_refused(members_from(p, q, e), "Field 'e' must be less than")


def test_a_public_exponent_that_openssl_uses_with_no_modulus_so_long_is_refused() -> None:
    key = members_of(rsa_key(3104))
    p, q = int.from_bytes(key["p"]), int.from_bytes(key["q"])
    e = next(e for e in itertools.count(2**64 + 1, 2) if gcd(e, (p - 1) * (q - 1)) == 1)
    assert_refused(members_from(p, q, e), "Field 'e' must be less than")


def test_a_tiny_private_exponent_is_refused_by_its_public_one(primes: tuple[int, int]) -> None:
    p, q = primes
    e = pow(65537, -1, lcm(p - 1, q - 1))
    members = members_from(p, q, e)
    assert int.from_bytes(members["d"]) == 65537
    assert_refused(members, "Field 'e' must be less than")


# --- RSA: sizes ---


@pytest.fixture
def no_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test as soon as the members become the integers that arithmetic needs."""

    def fail(**_members: int) -> None:
        pytest.fail("a member of a key that is too large became an integer")

    monkeypatch.setattr(app.jwk.rsa, "_Numbers", fail)


@pytest.mark.usefixtures("no_arithmetic")
@pytest.mark.parametrize(
    "n",
    [
        b"",
        b"\0" * 256,
        b"\x7f" + b"\xff" * 255,
        b"\0" * 300 + b"\x7f" + b"\xff" * 255,
        b"\1" + b"\0" * 511 + b"\1",
        b"\xff" * 2048,
        b"\xff" * 2**21,
    ],
    ids=["0", "0_of_256_bytes", "2047", "2047_padded", "4097", "16384", "2_MiB"],
)
def test_a_modulus_of_the_wrong_size_is_refused_before_any_arithmetic(
    n: bytes, good: dict[str, bytes]
) -> None:
    assert_refused(good | {"n": n}, "Field 'n' must have 2048 to 4096 bits")


@pytest.mark.usefixtures("no_arithmetic")
def test_a_sound_key_of_1024_bits_is_refused_by_its_size() -> None:
    small = members_of(rsa.generate_private_key(65537, 1024))
    assert_refused(small, "Field 'n' must have 2048 to 4096 bits")


@pytest.mark.usefixtures("no_arithmetic")
@pytest.mark.parametrize("name", MEMBERS[1:])
def test_a_member_longer_than_the_modulus_is_refused_before_any_arithmetic(
    name: str, good: dict[str, bytes]
) -> None:
    for value in (b"\1" + bytes(256), b"\xff" * 2**20):
        assert_refused(good | {name: value}, f"Field '{name}' is longer than 'n'")


@pytest.mark.parametrize("n", [2**2047, 2**4096 - 1], ids=["2048", "4096"])
def test_the_sizes_at_both_ends_are_within_the_limits(n: int, good: dict[str, bytes]) -> None:
    for padding in range(3):
        assert_refused(good | {"n": bytes(padding) + octets(n)}, "it has a small factor")


# --- RSA: weak moduli ---


@pytest.mark.parametrize("factor", [743, 1021])
def test_a_modulus_with_a_small_factor_is_refused_though_openssl_accepts_it(factor: int) -> None:
    members = members_from(number("of 2048 bits"), factor)
    openssl_accepts(members)
    assert_refused(members, "Field 'n' is a weak modulus: it has a small factor")


def test_primes_too_different_in_size_are_refused_though_openssl_accepts_them() -> None:
    members = members_from(number("of 1800 bits"), number("of 256 bits"))
    openssl_accepts(members)
    assert_refused(members, "'p' and 'q' are too different in size")


def test_a_roca_modulus_is_refused_though_openssl_accepts_it() -> None:
    members = members_from(number("first of ROCA"), number("second of ROCA"))
    openssl_accepts(members)
    assert_refused(members, "Field 'n' is a weak modulus: it has the fingerprint of CVE-2017-15361")


def test_close_primes_are_refused_though_openssl_accepts_them(primes: tuple[int, int]) -> None:
    p, q = primes[0], number("next to p")
    assert fermat_finds_a_factor(p * q, rounds=100)
    members = members_from(q, p)
    openssl_accepts(members)
    assert_refused(members, "Field 'n' is a weak modulus: 'p' and 'q' are too close")


@pytest.mark.parametrize("distance_bits", DISTANCE_BITS)
def test_whatever_fermat_finds_in_100_rounds_is_too_close(
    distance_bits: int, primes: tuple[int, int]
) -> None:
    p = primes[0]
    q = number(f"p + 2**{distance_bits}")
    assert fermat_finds_a_factor(p * q, rounds=100) == (distance_bits <= 515)
    assert_refused(members_from(q, p), "too close")


def test_primes_at_the_distance_fips_186_5_wants_are_accepted(primes: tuple[int, int]) -> None:
    rsa_import(members_from(number("p - 2**924 - 2**900"), primes[0]))


def fermat_finds_a_factor(n: int, rounds: int) -> bool:
    start = isqrt(n) + 1
    squares = (a * a - n for a in range(start, start + rounds))
    return any(isqrt(square) ** 2 == square for square in squares)


def openssl_accepts(members: Mapping[str, bytes]) -> None:
    """Show that the check under test is ours alone, and that the rest of the key is sound."""
    n, e, d, p, q, dp, dq, qi = (int.from_bytes(members[name]) for name in MEMBERS)
    rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, rsa.RSAPublicNumbers(e, n)).private_key()


def test_equal_primes_are_refused(primes: tuple[int, int]) -> None:
    p = primes[0]
    d = pow(65537, -1, p - 1)
    values = (p * p, 65537, d, p, p, d, d, 1)
    members = {name: octets(value) for name, value in zip(MEMBERS, values, strict=True)}
    assert_refused(members, "Fields 'p' and 'q' must be different")


@pytest.mark.parametrize("composite_first", [True, False])
def test_a_composite_prime_is_refused_in_an_otherwise_consistent_key(
    composite_first: bool, primes: tuple[int, int]
) -> None:
    composite = number("r") * number("s")
    pair = (composite, primes[0]) if composite_first else (primes[0], composite)
    assert_refused(members_from(*pair), "Fields 'p' and 'q' must be prime numbers")


def test_a_working_key_of_three_primes_is_refused_with_two_of_them_multiplied() -> None:
    r, s, q = (number(name) for name in ("r", "s", "q"))
    order = lcm(r - 1, s - 1, q - 1)
    assert pow(2, 65537 * pow(65537, -1, order), r * s * q) == 2
    members = members_from(r * s, q, order=order)
    assert_refused(members, "Field 'd' is not the private exponent of 'e'")


def test_a_modulus_as_its_own_factor_is_refused(good: dict[str, bytes]) -> None:
    for factors in ({"p": b"\1", "q": good["n"]}, {"p": good["n"], "q": b"\1"}):
        assert_refused(good | factors, "too different in size")


# --- Refusals keep secrets ---


def test_a_refusal_shows_no_secret_and_chains_no_exception() -> None:
    members = members_from(number("r") * number("s"), number("p"))
    with pytest.raises(BadRequest) as caught:
        rsa_import(members)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    shown = repr(caught.value) + str(caught.value)
    for name in set(MEMBERS) - {"e"}:
        assert str(int.from_bytes(members[name])) not in shown
        assert members[name].hex() not in shown


def test_the_record_of_the_members_does_not_show_them(
    monkeypatch: pytest.MonkeyPatch, good: dict[str, bytes]
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(app.jwk.rsa, "_key_of", lambda key: seen.append(repr(key)))
    RSA.read_private(KeySpec(kty="RSA"), good)
    (shown,) = seen
    assert not any(str(int.from_bytes(good[name])) in shown for name in MEMBERS)


@pytest.mark.parametrize("error", [ValueError, OverflowError, UnsupportedAlgorithm, InternalError])
def test_every_exception_of_the_library_becomes_a_bad_request(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, good: dict[str, bytes]
) -> None:
    def fail(*_arguments: object) -> None:
        raise error.__new__(error)

    monkeypatch.setattr(ec, "derive_private_key", fail)
    monkeypatch.setattr(rsa, "RSAPrivateNumbers", fail)
    monkeypatch.setattr(ed25519.Ed25519PrivateKey, "from_private_bytes", fail)
    with pytest.raises(BadRequest):
        ec_import("P-256", d=b"\1" * 32)
    with pytest.raises(BadRequest):
        ed25519_import(bytes(32), None)
    with pytest.raises(BadRequest):
        rsa_import(good)


# --- Random bytes ---


def only_bad_request(check: Callable[[], object]) -> None:
    with suppress(BadRequest):
        check()


optional_bytes = st.none() | st.binary(max_size=80)


@randomly
@given(
    alg=st.sampled_from([*CEK_BYTES, *HASH_BYTES]) | st.text("AGCHMS0123456789"),
    k=st.binary(max_size=200),
)
def test_random_secrets_raise_nothing_but_bad_request(alg: str, k: bytes) -> None:
    only_bad_request(lambda: secret(alg, k))


@randomly
@given(data=st.data(), crv=st.sampled_from([*CURVES]), x=optional_bytes, y=optional_bytes)
def test_random_ec_members_raise_nothing_but_bad_request(
    data: st.DataObject, crv: str, x: bytes | None, y: bytes | None
) -> None:
    size = CURVES[crv][1]
    d = data.draw(st.binary(min_size=size, max_size=size) | st.binary(max_size=80))
    only_bad_request(lambda: ec_import(crv, d=d, x=x, y=y))


@randomly
@given(d=st.binary(min_size=32, max_size=32) | st.binary(max_size=80), x=optional_bytes)
def test_random_ed25519_members_raise_nothing_but_bad_request(d: bytes, x: bytes | None) -> None:
    only_bad_request(lambda: ed25519_import(d, x))


any_member = st.none() | st.binary(max_size=600)


@randomly
@given(changes=st.dictionaries(st.sampled_from(MEMBERS), any_member, min_size=1))
def test_random_members_in_a_good_rsa_key_raise_nothing_but_bad_request(
    changes: dict[str, bytes | None], good: dict[str, bytes]
) -> None:
    only_bad_request(lambda: rsa_import(good | changes))


@randomly
@given(
    n=st.binary(min_size=256, max_size=512),
    rest=st.fixed_dictionaries(dict.fromkeys(MEMBERS[1:], st.binary(max_size=256))),
)
def test_wholly_random_rsa_members_raise_nothing_but_bad_request(
    n: bytes, rest: dict[str, bytes]
) -> None:
    only_bad_request(lambda: rsa_import({**rest, "n": n}))


small = st.integers(min_value=0, max_value=5).map(octets)


@randomly
@given(p=small, q=small, rest=st.fixed_dictionaries(dict.fromkeys(("d", "dp", "dq", "qi"), small)))
def test_degenerate_rsa_members_raise_nothing_but_bad_request_in_any_row(
    p: bytes, q: bytes, rest: dict[str, bytes]
) -> None:
    n = octets(int.from_bytes(p) * int.from_bytes(q) << 2048)
    only_bad_request(
        lambda: rsa_import(
            {**rest, "n": n, "e": b"\1\0\1", "p": octets(int.from_bytes(p) << 2048), "q": q}
        )
    )


# --- Wycheproof ---

REFUSED_KEYS = {
    7: "ROCA",
    8: "Field 'n' must have 2048 to 4096 bits",
    9: "Field 'e' must be odd and at least 65537",
    10: "Field 'k' must be 32 to 4096 bytes",
    11: "Field 'k' must be 48 to 4096 bytes",
    12: "Field 'k' must be 64 to 4096 bytes",
    16: "Field 'k' must be 32 to 4096 bytes",
    17: "Field 'k' must be 48 to 4096 bytes",
    18: "Field 'k' must be 64 to 4096 bytes",
    22: "Field 'y' does not match",
    23: "Field 'd' must be exactly 48 bytes",
    24: "Field 'n' is required",
}
# The material is sound; what these test lies elsewhere: mixed or repeated keys, signatures, and
# the fit of alg and use to the key.
ACCEPTED_KEYS = (1, 2, 3, 4, 5, 6, 13, 14, 15, 19, 20, 21, 25, 26)


@pytest.fixture
def wycheproof(vectors: Path) -> dict[int, list[dict[str, str]]]:
    """The private JWKs of json_web_key_test.json by tcId."""
    file = json.loads((vectors / "wycheproof" / "json_web_key_test.json").read_text("utf-8"))
    return {
        test["tcId"]: [jwk for jwk in group["private"]["keys"] if "k" in jwk or "d" in jwk]
        for group in file["testGroups"]
        for test in group["tests"]
    }


def jwk_import(jwk: dict[str, str]) -> object:
    encoded = ("k", "x", "y", *MEMBERS)
    octet = {name: decoded(jwk[name]) for name in encoded if name in jwk}
    imports: dict[str, Callable[[], Any]] = {
        "oct": lambda: secret(jwk["alg"], octet["k"]),
        "EC": lambda: ec_import(jwk["crv"], **octet),
        "RSA": lambda: rsa_import(octet),
    }
    return imports[jwk["kty"]]()


def decoded(b64u: str) -> bytes:
    return base64.urlsafe_b64decode(b64u + "==")


@pytest.mark.parametrize(("tc_id", "reason"), REFUSED_KEYS.items())
def test_wycheproof_keys_with_bad_material_are_refused(
    tc_id: int, reason: str, wycheproof: dict[int, list[dict[str, str]]]
) -> None:
    (jwk,) = wycheproof[tc_id]
    with pytest.raises(BadRequest, match=reason):
        jwk_import(jwk)


@pytest.mark.parametrize("tc_id", ACCEPTED_KEYS)
def test_wycheproof_keys_with_sound_material_are_accepted(
    tc_id: int, wycheproof: dict[int, list[dict[str, str]]]
) -> None:
    assert wycheproof[tc_id]
    for jwk in wycheproof[tc_id]:
        assert jwk_import(jwk)


def test_every_wycheproof_key_has_a_verdict(wycheproof: dict[int, list[dict[str, str]]]) -> None:
    assert set(wycheproof) == {*REFUSED_KEYS, *ACCEPTED_KEYS}
