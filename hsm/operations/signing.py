"""Signatures (RFC 7515), made and verified in the token, and checked before they are given away."""

import hashlib
from functools import singledispatch
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa, utils
from pkcs11 import PKCS11Error

from hsm.algorithms.families import SignatureAlgorithm
from hsm.cryptoki.canary import Canary
from hsm.cryptoki.handles import Key
from hsm.cryptoki.material import PublicKey
from hsm.errors import WrongResult


def sign(private: Key, row: SignatureAlgorithm, signing_input: bytes, public: PublicKey) -> bytes:
    """Return the JWS signature: R‖S for ECDSA (RFC 7518 §3.4), never DER.

    Raises ``WrongResult`` if it is not one of ``public``: a faulty signature must not leave, and
    one of RSA can even give away the key (Boneh, DeMillo, Lipton 1997).
    """
    signature = private.sign(_digested(row, signing_input), **_mechanism(row))
    if not is_valid(public, row, signing_input, signature):
        raise WrongResult("signature")
    return signature


def verify(
    public: Key,
    row: SignatureAlgorithm,
    signing_input: bytes,
    signature: bytes,
    canary: Canary,
) -> bool:
    """Tell whether ``signature`` is one; of a wrong length it never reaches the token."""
    if len(signature) != _signature_bytes(row, public):
        return False
    try:
        return public.verify(_digested(row, signing_input), signature, **_mechanism(row))
    except PKCS11Error as error:
        if canary.blames_input(error, public.lent):
            return False
        raise


def is_valid(
    public: PublicKey, row: SignatureAlgorithm, signing_input: bytes, signature: bytes
) -> bool:
    """Tell, in software, whether ``signature`` is one."""
    if row.signature_bytes not in {None, len(signature)}:
        return False
    try:
        _verify(public, row, signing_input, signature)
    except InvalidSignature:
        return False
    return True


@singledispatch
def _verify(public: Any, row: SignatureAlgorithm, signing_input: bytes, signature: bytes) -> None:
    raise NotImplementedError


@_verify.register
def _(public: rsa.RSAPublicKey, row: SignatureAlgorithm, data: bytes, signature: bytes) -> None:
    assert row.hash is not None  # noqa: S101  # every RSA row has one
    scheme: padding.AsymmetricPadding = padding.PKCS1v15()
    if row.param is not None:
        scheme = padding.PSS(padding.MGF1(row.hash), row.hash.digest_size)
    public.verify(signature, data, scheme, row.hash)


@_verify.register
def _(
    public: ec.EllipticCurvePublicKey, row: SignatureAlgorithm, data: bytes, signature: bytes
) -> None:
    assert row.hash is not None  # noqa: S101  # every ECDSA row has one
    half = len(signature) // 2
    r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
    public.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(row.hash))


@_verify.register(ed25519.Ed25519PublicKey)
@_verify.register(mldsa.MLDSA44PublicKey)
def _(
    public: ed25519.Ed25519PublicKey | mldsa.MLDSA44PublicKey,
    _row: SignatureAlgorithm,
    data: bytes,
    signature: bytes,
) -> None:
    public.verify(signature, data)


def _digested(row: SignatureAlgorithm, signing_input: bytes) -> bytes:
    # CKM_ECDSA signs whatever it is given, of any length: the hash is ours to get right.
    if row.hash is None or not row.is_prehashed:
        return signing_input
    return hashlib.new(row.hash.name, signing_input).digest()


def _mechanism(row: SignatureAlgorithm) -> dict[str, object]:
    return {"mechanism": row.mechanism, "mechanism_param": row.param}


def _signature_bytes(row: SignatureAlgorithm, public: Key) -> int:
    if row.signature_bytes is not None:
        return row.signature_bytes
    assert isinstance(public.public, rsa.RSAPublicKey)  # noqa: S101  # only RSA leaves it to the key
    return (public.public.key_size + 7) // 8
