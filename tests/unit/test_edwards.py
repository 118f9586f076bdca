"""Which octets are a public key on an Edwards curve."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519

from app.jwk.okp import _EDWARDS

ED25519 = _EDWARDS["Ed25519"]
ED448 = _EDWARDS["Ed448"]


def test_public_keys_of_edwards25519_are_points_of_large_order():
    base = bytes.fromhex("58" + "66" * 31)  # RFC 8032 §5.1: y = 4/5
    assert ED25519.is_public_key(base)
    of_order_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
    assert not ED25519.is_public_key(of_order_8)
    assert not ED25519.is_public_key(b"\x01" + bytes(30) + b"\x80")  # -0


def octets(y: int, sign: int, size_bytes: int) -> bytes:
    return (y | sign << 8 * size_bytes - 1).to_bytes(size_bytes, "little")


@pytest.mark.parametrize(
    ("curve", "private", "size_bytes"),
    [(ED25519, ed25519.Ed25519PrivateKey, 32), (ED448, ed448.Ed448PrivateKey, 57)],
    ids=["edwards25519", "edwards448"],
)
def test_a_public_key_is_one_and_the_points_of_order_1_2_and_4_are_none(curve, private, size_bytes):
    for _ in range(50):
        assert curve.is_public_key(private.generate().public_key().public_bytes_raw())
    for y in (0, 1, curve.p - 1, curve.p, curve.p + 1):
        for sign in (0, 1):
            assert not curve.is_public_key(octets(y, sign, size_bytes))


@pytest.mark.parametrize(
    ("curve", "size_bytes"), [(ED25519, 32), (ED448, 57)], ids=["edwards25519", "edwards448"]
)
def test_about_half_of_all_y_belong_to_no_point(curve, size_bytes):
    found = [curve.is_public_key(octets(y, 0, size_bytes)) for y in range(2, 402)]
    assert 120 < sum(found) < 280
