"""The algorithms: four frozen tables, by their JOSE names.

The tables say what JOSE and PKCS#11 define; what *this* token can do is proven at boot.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, TypeVar

from cryptography.hazmat.primitives import hashes
from pkcs11 import MGF, Mechanism

from hsm.algorithms.families import (
    Algorithm,
    CekPathName,
    ContentEncryption,
    GcmKeyWrapping,
    KeyAgreement,
    KeyManagement,
    KeyWrapping,
    MacAlgorithm,
    PssParam,
    RsaOaep,
    SignatureAlgorithm,
)
from hsm.algorithms.kinds import (
    EC,
    ED448,
    ED25519,
    EDWARDS,
    ML_DSA,
    OLD_ML_DSA,
    P256,
    P384,
    P521,
    RSA,
    SECP256K1,
    Curve,
)

Row = TypeVar("Row", bound=Algorithm)


def _rsa(
    name: str,
    mechanism: Mechanism,
    hash_algorithm: hashes.HashAlgorithm,
    param: PssParam | None = None,
) -> SignatureAlgorithm:
    return SignatureAlgorithm(
        name=name,
        kind=RSA,
        mechanism=mechanism,
        hash=hash_algorithm,
        param=param,
        digest_mechanism=Mechanism.RSA_PKCS_PSS if param else Mechanism.RSA_PKCS,
    )


def _ecdsa(
    name: str, curve: Curve, hash_algorithm: hashes.HashAlgorithm, *, fips: bool = True
) -> SignatureAlgorithm:
    return SignatureAlgorithm(
        name=name,
        kind=EC,
        mechanism=Mechanism.ECDSA,
        curves=(curve,),
        hash=hash_algorithm,
        is_prehashed=True,
        digest_mechanism=Mechanism.ECDSA,
        fips=fips,
    )


def _eddsa(name: str, *curves: Curve, name_of: str | None = None) -> SignatureAlgorithm:
    """Return a row of RFC 8037, or one of its names of RFC 9864, which says the curve."""
    return SignatureAlgorithm(
        name=name,
        kind=EDWARDS,
        mechanism=Mechanism.EDDSA,
        curves=curves,
        name_of=name_of,
        fips=False,
    )


def _ml_dsa(name: str, *, parameter_set: int, signature_bytes: int) -> SignatureAlgorithm:
    """Return a row of RFC 9964: CKP_ML_DSA_44 and so on; lengths are of FIPS 204, table 2."""
    return SignatureAlgorithm(
        name=name,
        kind=ML_DSA,
        mechanism=Mechanism.ML_DSA,
        parameter_set=parameter_set,
        signature_bytes=signature_bytes,
        fips=False,
        is_bound_only=True,
    )


def _cbc_hmac(name: str, mechanism: Mechanism, hash_bytes: int) -> ContentEncryption:
    """Return a row of RFC 7518 §5.2: a key as long as the hash; its parts and the tag are half."""
    tag_bytes = hash_bytes // 2
    return ContentEncryption(
        name=name,
        mechanism=Mechanism.AES_CBC_PAD,
        key_bytes=hash_bytes,
        iv_bytes=16,
        tag_bytes=tag_bytes,
        mac=MacAlgorithm(name=name, mechanism=mechanism, mac_bytes=hash_bytes, tag_bytes=tag_bytes),
        is_counted=False,
    )


def _table(*rows: Row) -> Mapping[str, Row]:
    return MappingProxyType({row.name: row for row in rows})


_PSS_256: Final = (Mechanism.SHA256, MGF.SHA256, 32)
_PSS_384: Final = (Mechanism.SHA384, MGF.SHA384, 48)
_PSS_512: Final = (Mechanism.SHA512, MGF.SHA512, 64)

SIGNATURES: Final = _table(
    _rsa("RS256", Mechanism.SHA256_RSA_PKCS, hashes.SHA256()),
    _rsa("RS384", Mechanism.SHA384_RSA_PKCS, hashes.SHA384()),
    _rsa("RS512", Mechanism.SHA512_RSA_PKCS, hashes.SHA512()),
    _rsa("PS256", Mechanism.SHA256_RSA_PKCS_PSS, hashes.SHA256(), _PSS_256),
    _rsa("PS384", Mechanism.SHA384_RSA_PKCS_PSS, hashes.SHA384(), _PSS_384),
    _rsa("PS512", Mechanism.SHA512_RSA_PKCS_PSS, hashes.SHA512(), _PSS_512),
    _ecdsa("ES256", P256, hashes.SHA256()),
    _ecdsa("ES384", P384, hashes.SHA384()),
    _ecdsa("ES512", P521, hashes.SHA512()),
    _ecdsa("ES256K", SECP256K1, hashes.SHA256(), fips=False),
    _eddsa("EdDSA", ED25519, ED448),
    _eddsa("Ed25519", ED25519, name_of="EdDSA"),
    _eddsa("Ed448", ED448, name_of="EdDSA"),
    _ml_dsa("ML-DSA-44", parameter_set=1, signature_bytes=2420),
    _ml_dsa("ML-DSA-65", parameter_set=2, signature_bytes=3309),
    _ml_dsa("ML-DSA-87", parameter_set=3, signature_bytes=4627),
    replace(
        _ml_dsa("MLDSA44", parameter_set=1, signature_bytes=2420),
        kind=OLD_ML_DSA,
        name_of="ML-DSA-44",
        jwk_alg="ML-DSA-44",
    ),
)

MACS: Final = _table(
    MacAlgorithm(name="HS256", mechanism=Mechanism.SHA256_HMAC, mac_bytes=32),
    MacAlgorithm(name="HS384", mechanism=Mechanism.SHA384_HMAC, mac_bytes=48),
    MacAlgorithm(name="HS512", mechanism=Mechanism.SHA512_HMAC, mac_bytes=64),
)

CONTENT_ENCRYPTIONS: Final = _table(
    ContentEncryption(name="A128GCM", key_bytes=16),
    ContentEncryption(name="A192GCM", key_bytes=24),
    ContentEncryption(name="A256GCM", key_bytes=32),
    _cbc_hmac("A128CBC-HS256", Mechanism.SHA256_HMAC, 32),
    _cbc_hmac("A192CBC-HS384", Mechanism.SHA384_HMAC, 48),
    _cbc_hmac("A256CBC-HS512", Mechanism.SHA512_HMAC, 64),
)

CONTENT_FAMILIES: Final = tuple(
    tuple(row for row in CONTENT_ENCRYPTIONS.values() if row.mechanism is mechanism)
    for mechanism in (Mechanism.AES_GCM, Mechanism.AES_CBC_PAD)
)
"""Rows that differ in sizes only: a path that carries a CEK of one carries those of all."""

KEY_WRAPPINGS: Final = _table(
    KeyWrapping(name="A128KW", key_bytes=16),
    KeyWrapping(name="A192KW", key_bytes=24),
    KeyWrapping(name="A256KW", key_bytes=32),
)

GCM_KEY_WRAPPINGS: Final = _table(
    *(
        GcmKeyWrapping(name=f"{row.name}KW", key_bytes=row.key_bytes, content=row)
        for row in CONTENT_FAMILIES[0]
    )
)

KEY_AGREEMENTS: Final = _table(
    KeyAgreement(name="ECDH-ES", transports=False, cek_paths=(CekPathName.AGREEMENT,)),
    *(KeyAgreement(name=f"ECDH-ES+{name}", wrapping=row) for name, row in KEY_WRAPPINGS.items()),
)

_RSA_ENCRYPTIONS: Final = _table(
    RsaOaep(name="RSA-OAEP", param=(Mechanism.SHA_1, MGF.SHA1, None), hash=hashes.SHA1()),  # noqa: S303  # RFC 7518 §4.3
    RsaOaep(name="RSA-OAEP-256", param=(Mechanism.SHA256, MGF.SHA256, None), hash=hashes.SHA256()),
    RsaOaep(name="RSA-OAEP-384", param=(Mechanism.SHA384, MGF.SHA384, None), hash=hashes.SHA384()),
    RsaOaep(name="RSA-OAEP-512", param=(Mechanism.SHA512, MGF.SHA512, None), hash=hashes.SHA512()),
    KeyManagement(
        name="RSA1_5",
        kind=RSA,
        mechanism=Mechanism.RSA_PKCS,
        fips=False,
        is_bound_only=True,
        is_opt_in=True,
        tells_size=False,  # a random one comes out of one padding in 2**16 (Bleichenbacher, 1998)
    ),
)

KEY_MANAGEMENTS: Final[Mapping[str, KeyManagement]] = MappingProxyType(
    {**_RSA_ENCRYPTIONS, **KEY_WRAPPINGS, **GCM_KEY_WRAPPINGS, **KEY_AGREEMENTS}
)

DIRECT: Final = "dir"
"""The JWE ``alg`` without key management: the named key is the CEK (RFC 7518 §4.5)."""

ALGORITHMS: Final[Mapping[str, Algorithm]] = MappingProxyType(
    {**SIGNATURES, **MACS, **CONTENT_ENCRYPTIONS, **KEY_MANAGEMENTS}
)
"""Every algorithm that a key can be bound to."""
