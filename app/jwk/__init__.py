"""Keys as JWKs (RFC 7517): what is checked, read and written of each, by its ``kty``."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.jose import encoding
from app.jwk.akp import AKP
from app.jwk.ec import EC
from app.jwk.key_type import KeyType, PairType
from app.jwk.members import Octets
from app.jwk.oct import OCT
from app.jwk.okp import OKP
from app.jwk.rsa import RSA
from hsm import KeySpec, PublicKey

PAIR_TYPES: Final[Mapping[str, PairType]] = MappingProxyType(
    {row.kty: row for row in (RSA, EC, OKP, AKP)}
)
"""The types of keys with a public half."""

KEY_TYPES: Final[Mapping[str, KeyType]] = MappingProxyType({OCT.kty: OCT, **PAIR_TYPES})

PRIVATE_MEMBERS: Final = tuple(
    dict.fromkeys(name for row in KEY_TYPES.values() for name in row.private_members)
)


def type_of(spec: KeySpec) -> KeyType:
    """Return the type of such keys, under the preferred one of its names."""
    return KEY_TYPES[spec.kind.ktys[0]]


def write_public(key: PublicKey) -> dict[str, str]:
    """Return the public members of a JWK (RFC 7518 §6, RFC 8037 §2, RFC 9964)."""
    return next(
        row.write_public(key) for row in PAIR_TYPES.values() if isinstance(key, row.public_keys)
    )


def require_sound(key: PublicKey) -> None:
    """Raise ``BadRequest`` for a public key that would not be taken from a caller either."""
    jwk = write_public(key)
    row, crv = PAIR_TYPES[jwk["kty"]], jwk.get("crv", "")
    read_sound(row, crv, {name: encoding.decode(jwk[name]) for name in row.public_members})


def read_sound(row: PairType, crv: str, octets: Octets) -> PublicKey:
    """Return the public key of such octets, checked; raise ``BadRequest``."""
    signs = not row.crvs or crv in row.signing_crvs
    read = row.read_public if signs or row.read_epk is None else row.read_epk
    return read(crv, octets)


def load_public(jwk: Mapping[str, str]) -> PublicKey:
    """Return the key of the public members of a JWK of ours."""
    row = PAIR_TYPES[jwk["kty"]]
    octets = {name: encoding.decode(jwk[name]) for name in row.public_members}
    return row.load_public(jwk.get("crv", ""), octets)


def public_pem(jwk: Mapping[str, str]) -> bytes:
    """Return SubjectPublicKeyInfo in PEM of the public members of a JWK of ours."""
    key: Any = load_public(jwk)
    pem: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem
