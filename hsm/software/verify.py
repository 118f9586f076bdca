"""Signatures verified in software: those of callers' keys, and those that the token has made."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from hsm.algorithms.families import SignatureAlgorithm
from hsm.algorithms.kinds import EC, EDWARDS, ML_DSA, RSA, PublicKey, curve_of


def is_valid(
    public: PublicKey, row: SignatureAlgorithm, signing_input: bytes, signature: bytes
) -> bool:
    """Tell whether ``signature`` is one of ``public``, which is of the kind of ``row``."""
    if len(signature) != signature_bytes(public, row):
        return False
    try:
        _VERIFICATIONS[row.kind.name](public, row, signing_input, signature)
    except InvalidSignature:
        return False
    return True


def signature_bytes(public: PublicKey, row: SignatureAlgorithm) -> int | None:
    """Return the length of every signature that ``public`` makes."""
    if isinstance(public, rsa.RSAPublicKey):
        return (public.key_size + 7) // 8
    curve = curve_of(public)
    return curve.signature_bytes if curve else row.signature_bytes


def _rsa(public: Any, row: SignatureAlgorithm, data: bytes, signature: bytes) -> None:
    assert row.hash is not None  # noqa: S101  # every RSA row has one
    scheme: padding.AsymmetricPadding = padding.PKCS1v15()
    if row.param is not None:
        scheme = padding.PSS(padding.MGF1(row.hash), row.hash.digest_size)
    public.verify(signature, data, scheme, row.hash)


def _ecdsa(public: Any, row: SignatureAlgorithm, data: bytes, signature: bytes) -> None:
    assert row.hash is not None  # noqa: S101  # every ECDSA row has one
    half = len(signature) // 2
    r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
    public.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(row.hash))


def _whole(public: Any, _row: SignatureAlgorithm, data: bytes, signature: bytes) -> None:
    """Verify where the hash is part of the scheme: EdDSA, ML-DSA."""
    public.verify(signature, data)


_VERIFICATIONS: Final[Mapping[str, Callable[[Any, SignatureAlgorithm, bytes, bytes], None]]] = (
    MappingProxyType({RSA.name: _rsa, EC.name: _ecdsa, EDWARDS.name: _whole, ML_DSA.name: _whole})
)
