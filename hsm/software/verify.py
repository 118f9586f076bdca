"""Signatures verified in software: those of callers' keys, and those that the token has made."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from hsm.algorithms.families import SignatureAlgorithm
from hsm.algorithms.kinds import EC, EDWARDS, ML_DSA, RSA, PublicKey, curve_of

Hashed = hashes.HashAlgorithm | utils.Prehashed | None
"""The hash of what is signed, or that it has been taken; ``None`` where the scheme has its own."""


def is_valid(
    public: PublicKey, row: SignatureAlgorithm, signing_input: bytes, signature: bytes
) -> bool:
    """Tell whether ``signature`` is one of ``public``, which is of the kind of ``row``."""
    return _is_valid(public, row, row.hash, signing_input, signature)


def is_valid_of_digest(
    public: PublicKey, row: SignatureAlgorithm, digest: bytes, signature: bytes
) -> bool:
    """Tell the same of what has the ``digest``, as long as the hash of ``row``."""
    assert row.hash is not None  # noqa: S101  # no other row signs digests
    return _is_valid(public, row, utils.Prehashed(row.hash), digest, signature)


def _is_valid(
    public: PublicKey, row: SignatureAlgorithm, hashed: Hashed, data: bytes, signature: bytes
) -> bool:
    if len(signature) != signature_bytes(public, row):
        return False
    try:
        _VERIFICATIONS[row.kind.name](public, row, hashed, data, signature)
    except InvalidSignature:
        return False
    return True


def signature_bytes(public: PublicKey, row: SignatureAlgorithm) -> int | None:
    """Return the length of every signature that ``public`` makes."""
    if isinstance(public, rsa.RSAPublicKey):
        return (public.key_size + 7) // 8
    curve = curve_of(public)
    return curve.signature_bytes if curve else row.signature_bytes


def _rsa(
    public: Any, row: SignatureAlgorithm, hashed: Hashed, data: bytes, signature: bytes
) -> None:
    assert row.hash is not None  # noqa: S101  # every RSA row has one
    scheme: padding.AsymmetricPadding = padding.PKCS1v15()
    if row.param is not None:
        scheme = padding.PSS(padding.MGF1(row.hash), row.hash.digest_size)
    public.verify(signature, data, scheme, hashed)


def _ecdsa(
    public: Any, _row: SignatureAlgorithm, hashed: Any, data: bytes, signature: bytes
) -> None:
    half = len(signature) // 2
    r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
    public.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(hashed))


def _whole(
    public: Any, _row: SignatureAlgorithm, _hashed: Hashed, data: bytes, signature: bytes
) -> None:
    """Verify where the hash is part of the scheme: EdDSA, ML-DSA."""
    public.verify(signature, data)


_VERIFICATIONS: Final[
    Mapping[str, Callable[[Any, SignatureAlgorithm, Hashed, bytes, bytes], None]]
] = MappingProxyType({RSA.name: _rsa, EC.name: _ecdsa, EDWARDS.name: _whole, ML_DSA.name: _whole})
