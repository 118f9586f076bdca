"""Signatures (RFC 7515), made and verified in the token."""

import hashlib

from pkcs11 import PKCS11Error

from hsm.algorithms import SignatureAlgorithm
from hsm.canary import Canary
from hsm.errors import HsmError
from hsm.handles import Key


def sign(private: Key, row: SignatureAlgorithm, signing_input: bytes) -> bytes:
    """Return the JWS signature: R‖S for ECDSA (RFC 7518 §3.4), never DER."""
    signature: bytes = private.sign(_digested(row, signing_input), **_mechanism(row))
    if row.signature_bytes not in (None, len(signature)):
        raise HsmError
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
        return bool(public.verify(_digested(row, signing_input), signature, **_mechanism(row)))
    except PKCS11Error as error:
        if canary.blames_input(error, public.session):
            return False
        raise


def _digested(row: SignatureAlgorithm, signing_input: bytes) -> bytes:
    # CKM_ECDSA signs whatever it is given, of any length: the hash is ours to get right.
    return hashlib.new(row.digest, signing_input).digest() if row.digest else signing_input


def _mechanism(row: SignatureAlgorithm) -> dict[str, object]:
    return {"mechanism": row.mechanism, "mechanism_param": row.param}


def _signature_bytes(row: SignatureAlgorithm, public: Key) -> int:
    if row.signature_bytes is not None:
        return row.signature_bytes
    assert public.public is not None  # noqa: S101  # only RSA leaves the length to the modulus
    return (public.public.key_size + 7) // 8
