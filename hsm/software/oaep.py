"""EME-OAEP decoding in the process, for tokens that cannot (RFC 8017 §7.1.2).

Only for what ``token`` could not prove at boot. No early exit: every input of one length takes the
same steps, and a bad one ends with the substitute in place of the CEK.
"""

import hashlib
import hmac
from collections.abc import Iterator
from typing import NamedTuple

from cryptography.hazmat.primitives.hashes import HashAlgorithm


class Decoded(NamedTuple):
    """``cek`` holds the CEK, or the substitute unless the padding is valid and the size right."""

    cek: bytearray
    is_valid: bool
    is_of_size: bool

    def __repr__(self) -> str:
        return "<Decoded>"


def decode(encoded: bytes, hash_algorithm: HashAlgorithm, substitute: bytes) -> Decoded:
    """Decode EM, as long as the modulus, with the empty label.

    ``substitute`` is random and as long as the CEK has to be.
    """
    name, hash_bytes = hash_algorithm.name, hash_algorithm.digest_size
    masked_seed, masked_block = encoded[1 : 1 + hash_bytes], encoded[1 + hash_bytes :]
    seed = _xor(masked_seed, _mgf1(masked_block, hash_bytes, name))
    block = _xor(masked_block, _mgf1(seed, len(masked_block), name))
    is_labelled = hmac.compare_digest(block[:hash_bytes], hashlib.new(name).digest())
    bad = encoded[0] | (not is_labelled)
    separator, padding_bad = _separator(block, hash_bytes)
    is_valid = not (bad | padding_bad)
    is_of_size = len(block) - separator - 1 == len(substitute)
    keep = -(is_valid & is_of_size) & 0xFF
    message = block[-len(substitute) :]
    cek = bytearray(m & keep | s & ~keep & 0xFF for m, s in zip(message, substitute, strict=True))
    return Decoded(cek, is_valid, is_of_size)


def _separator(block: bytes, start: int) -> tuple[int, int]:
    """Return where the first 0x01 behind the zeros stands, and non-zero if it is missing."""
    searching, bad, position = 1, 0, 0
    for index in range(start, len(block)):
        octet = block[index]
        is_one = ((octet ^ 1) - 1) >> 8 & 1
        is_zero = (octet - 1) >> 8 & 1
        position |= index & -(searching & is_one)
        bad |= searching & ~(is_one | is_zero) & 1
        searching &= ~is_one
    return position, bad | searching


def _mgf1(seed: bytes, length_bytes: int, name: str) -> bytes:
    """MGF1 (RFC 8017 §B.2.1)."""

    def blocks() -> Iterator[bytes]:
        hash_bytes = hashlib.new(name).digest_size
        for counter in range(-(-length_bytes // hash_bytes)):
            yield hashlib.new(name, seed + counter.to_bytes(4)).digest()

    return b"".join(blocks())[:length_bytes]


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left) ^ int.from_bytes(right)).to_bytes(len(left))
