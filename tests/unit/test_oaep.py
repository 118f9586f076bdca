"""EME-OAEP decoding in the process follows RFC 8017 §7.1, for both hashes and every CEK size."""

import hashlib
import os

import pytest
from cryptography.hazmat.primitives import hashes
from hypothesis import given
from hypothesis import strategies as st

from hsm import CONTENT_ENCRYPTIONS, KEY_MANAGEMENTS
from hsm.algorithms.families import RsaOaep
from hsm.software.oaep import decode

OAEPS = {name: row for name, row in KEY_MANAGEMENTS.items() if isinstance(row, RsaOaep)}
HASHES = [row.hash for row in OAEPS.values()]
SIZES = [row.key_bytes for row in CONTENT_ENCRYPTIONS.values()]
MODULUS_BYTES = (256, 384, 512)

both_hashes = pytest.mark.parametrize("algorithm", HASHES, ids=lambda algorithm: algorithm.name)
every_modulus = pytest.mark.parametrize("modulus_bytes", MODULUS_BYTES)


def mgf1(seed: bytes, length: int, algorithm: hashes.HashAlgorithm) -> bytes:
    output = b""
    while len(output) < length:
        counter = len(output) // algorithm.digest_size
        output += hashlib.new(algorithm.name, seed + counter.to_bytes(4, "big")).digest()
    return output[:length]


def xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def encoded(block: bytes, algorithm: hashes.HashAlgorithm, first: int = 0) -> bytes:
    """Return EM of the data block DB = lHash ‖ PS ‖ 0x01 ‖ M (RFC 8017 §7.1.1 step 2)."""
    seed = os.urandom(algorithm.digest_size)
    masked_block = xor(block, mgf1(seed, len(block), algorithm))
    masked_seed = xor(seed, mgf1(masked_block, len(seed), algorithm))
    return bytes([first]) + masked_seed + masked_block


def block_of(message: bytes, algorithm: hashes.HashAlgorithm, modulus_bytes: int) -> bytes:
    label = hashlib.new(algorithm.name).digest()
    zeros = modulus_bytes - 2 * algorithm.digest_size - 2 - len(message)
    return label + bytes(zeros) + b"\x01" + message


@both_hashes
@every_modulus
@pytest.mark.parametrize("key_bytes", SIZES)
def test_a_cek_of_the_right_size_comes_out(algorithm, modulus_bytes, key_bytes):
    cek, substitute = os.urandom(key_bytes), os.urandom(key_bytes)
    decoded = decode(
        encoded(block_of(cek, algorithm, modulus_bytes), algorithm), algorithm, substitute
    )
    assert decoded == (bytearray(cek), True, True)


@both_hashes
@pytest.mark.parametrize("length", [0, 1, 15, 16, 31, 33, 64])
def test_a_cek_of_another_size_is_replaced(algorithm, length):
    substitute = os.urandom(32)
    block = block_of(b"\x01" * length, algorithm, 256)
    decoded = decode(encoded(block, algorithm), algorithm, substitute)
    assert decoded == (bytearray(substitute), True, False)


@both_hashes
@every_modulus
@pytest.mark.parametrize("position", ["first octet", "label", "padding", "separator"])
def test_every_fault_of_the_padding_is_replaced(algorithm, modulus_bytes, position):
    substitute = os.urandom(32)
    block = bytearray(block_of(os.urandom(32), algorithm, modulus_bytes))
    first = 0
    if position == "first octet":
        first = 1
    elif position == "label":
        block[3] ^= 0x80
    elif position == "padding":
        block[algorithm.digest_size] = 2
    else:
        block[-33:] = bytes(33)  # nothing but zeros: the separator is missing
    cek, is_valid, _ = decode(encoded(bytes(block), algorithm, first), algorithm, substitute)
    assert (bytes(cek), is_valid) == (substitute, False)


@given(st.binary(min_size=256, max_size=256))
def test_random_bytes_never_decode(octets):
    for algorithm in HASHES:
        substitute = bytes(32)
        cek, is_valid, _ = decode(octets, algorithm, substitute)
        assert (bytes(cek), is_valid) == (substitute, False)
