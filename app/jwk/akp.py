"""Keys of ML-DSA (RFC 9964). A token makes them; none is imported."""

from typing import Final

from cryptography.hazmat.primitives.asymmetric import mldsa

import hsm
from app.errors import BadRequest
from app.jose import encoding
from app.jwk.key_type import PairType
from app.jwk.members import Members, Octets, read
from hsm import KeySpec

_ALG: Final = hsm.SIGNATURES["MLDSA44"].jwk_alg or ""


def _read_private(spec: KeySpec, _members: Members) -> bytes:
    raise BadRequest(f"Field 'alg': keys of algorithm '{spec.alg}' cannot be imported")


def _read_public(_crv: str, octets: Octets) -> mldsa.MLDSA44PublicKey:
    """Return the key of ``pub`` (FIPS 204); any octets of its size are a key."""
    expected = f"an {_ALG} public key"
    return read(mldsa.MLDSA44PublicKey.from_public_bytes, octets["pub"], "pub", expected)


def _write_public(key: mldsa.MLDSA44PublicKey) -> dict[str, str]:
    return {"kty": "AKP", "alg": _ALG, "pub": encoding.encode(key.public_bytes_raw())}


AKP: Final = PairType(
    kty="AKP",
    public_members=("pub",),
    private_members=("priv",),
    imported_members=(),
    public_keys=(mldsa.MLDSA44PublicKey,),
    read_private=_read_private,
    read_public=_read_public,
    load_public=_read_public,
    write_public=_write_public,
    is_alg_required=True,
)
