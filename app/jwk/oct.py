"""Secret keys (RFC 7518 §6.4)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import hsm
from app.errors import BadRequest
from app.jwk.key_type import KeyType, Sizes
from app.jwk.members import Members, require, require_given
from hsm import KeySpec

HMAC_KEY_BYTES_MAX: Final = 4096


def _from(smallest_bytes: int, largest_bytes: int) -> Sizes:
    bits = range(8 * smallest_bytes, 8 * largest_bytes + 1, 8)
    return Sizes(generated=(bits[0],), imported=bits)


def _exactly(size_bytes: int) -> Sizes:
    """Return the row of an AES key (FIPS 197)."""
    return _from(size_bytes, size_bytes)


def _at_least(hash_bytes: int) -> Sizes:
    """Return the row of an HMAC key: no shorter than the hash (RFC 7518 §3.2)."""
    return _from(hash_bytes, HMAC_KEY_BYTES_MAX)


_SIZES: Final[Mapping[str, Sizes]] = MappingProxyType(
    {name: _exactly(row.key_bytes) for name, row in hsm.CONTENT_ENCRYPTIONS.items()}
    | {name: _exactly(row.key_bytes) for name, row in hsm.KEY_WRAPPINGS.items()}
    | {name: _exactly(row.key_bytes) for name, row in hsm.GCM_KEY_WRAPPINGS.items()}
    | {name: _at_least(row.mac_bytes) for name, row in hsm.MACS.items()}
)


def _read_private(spec: KeySpec, members: Members) -> bytes:
    """Return ``k`` if it has a size that ``alg`` permits (RFC 7518 §3.2, §4.4, §5.3)."""
    k = require_given(members, "k", f"a key of type '{spec.kty}'")
    sizes = _sizes(spec.alg)
    if sizes is None:
        raise BadRequest(f"Algorithm '{spec.alg}' is not compatible with key type 'oct'.")
    require(
        _bits_of(k) in sizes.imported,
        f"Field 'k' must be {_demand(sizes.imported)} bytes for {spec.alg}",
    )
    return k


def _sizes(alg: str | None) -> Sizes | None:
    return _SIZES.get(alg or "")


def _bits_of(k: bytes) -> int:
    return 8 * len(k)


def _demand(bits: range) -> str:
    smallest_bytes, largest_bytes = bits[0] // 8, bits[-1] // 8
    if smallest_bytes == largest_bytes:
        return f"exactly {smallest_bytes}"
    return f"{smallest_bytes} to {largest_bytes}"


OCT: Final = KeyType(
    kty="oct",
    private_members=("k",),
    imported_members=("k",),
    read_private=_read_private,
    sizes=_sizes,
    bits_of=_bits_of,
    is_alg_required=True,
)
