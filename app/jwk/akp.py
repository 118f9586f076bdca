"""Keys of ML-DSA (RFC 9964); a private one is the seed that it was made of."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import mldsa

import hsm
from app.jose import encoding
from app.jwk.key_type import PairType
from app.jwk.members import (
    Members,
    Octets,
    read,
    require,
    require_bytes,
    require_computed,
    require_given,
)
from hsm import KeySpec, PrivateKey, PublicKey

_ALGS: Final[Mapping[type[PublicKey], str]] = MappingProxyType(
    {
        mldsa.MLDSA44PublicKey: "ML-DSA-44",
        mldsa.MLDSA65PublicKey: "ML-DSA-65",
        mldsa.MLDSA87PublicKey: "ML-DSA-87",
    }
)
"""The registered names, which JWKs carry whatever a key was made as."""


_CLASSES: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "ML-DSA-44": mldsa.MLDSA44PrivateKey,
        "ML-DSA-65": mldsa.MLDSA65PrivateKey,
        "ML-DSA-87": mldsa.MLDSA87PrivateKey,
    }
)
_SEED_BYTES: Final = 32


def _read_private(spec: KeySpec, members: Members) -> PrivateKey:
    """Return the key of the seed ``priv`` (FIPS 204, algorithm 6); any octets are one."""
    seed = require_given(members, "priv", f"a key of type '{spec.kty}'")
    require_bytes("priv", seed, _SEED_BYTES)
    (row,) = spec.algorithms
    convert = _CLASSES[row.jwk_alg or row.name].from_seed_bytes
    private_key: Any = read(convert, seed, "priv", "a seed of ML-DSA")
    computed = private_key.public_key().public_bytes_raw()
    require_computed("pub", members.get("pub"), computed, private="priv")
    key: PrivateKey = private_key
    return key


def _read_public(_crv: str, octets: Octets) -> PublicKey:
    """Return the key of ``pub`` (FIPS 204); any octets of a size are a key."""
    pub = octets["pub"]
    require(len(pub) in hsm.ML_DSA_CLASSES, "Field 'pub' is not an ML-DSA public key")
    convert = hsm.ML_DSA_CLASSES[len(pub)].from_public_bytes
    key: PublicKey = read(convert, pub, "pub", "an ML-DSA public key")
    return key


def _write_public(key: Any) -> dict[str, str]:
    alg = next(alg for kind, alg in _ALGS.items() if isinstance(key, kind))
    return {"kty": "AKP", "alg": alg, "pub": encoding.encode(key.public_bytes_raw())}


AKP: Final = PairType(
    kty="AKP",
    public_members=("pub",),
    private_members=("priv",),
    imported_members=("priv",),
    public_keys=tuple(_ALGS),
    read_private=_read_private,
    read_public=_read_public,
    load_public=_read_public,
    write_public=_write_public,
    is_alg_required=True,
)
