"""Signatures (RFC 7515), made and verified in the token, and checked before they are given away."""

import ctypes
import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pkcs11 import Mechanism, PKCS11Error

from hsm.algorithms.families import SignatureAlgorithm
from hsm.algorithms.kinds import curve_of
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.repeated import Repeatedly
from hsm.errors import WrongResult
from hsm.software import verify as software

_DIGEST_INFOS: Final[Mapping[tuple[Mechanism | None, int], bytes]] = MappingProxyType(
    {
        (Mechanism.RSA_PKCS, 32): bytes.fromhex("3031300d060960864801650304020105000420"),
        (Mechanism.RSA_PKCS, 48): bytes.fromhex("3041300d060960864801650304020205000430"),
        (Mechanism.RSA_PKCS, 64): bytes.fromhex("3051300d060960864801650304020305000440"),
    }
)
"""What stands before a digest where the mechanism does not name its hash (RFC 8017 §9.2)."""


def sign(keys: Keys, row: SignatureAlgorithm, signing_input: bytes) -> bytes:
    """Return the JWS signature: R‖S for ECDSA (RFC 7518 §3.4), never DER.

    Raises ``WrongResult`` if it is not one of the public half: a faulty signature must not leave,
    and one of RSA can even give away the key (Boneh, DeMillo, Lipton 1997).
    """
    signature = keys.private.sign(_digested(row, signing_input), **_mechanism(keys, row))
    if not software.is_valid(keys.public.numbers, row, signing_input, signature):
        raise WrongResult("signature")
    return signature


def repeated(keys: Keys, row: SignatureAlgorithm) -> Repeatedly | None:
    """Return what does ``sign`` with many signing inputs."""
    numbers = keys.public.numbers
    size = software.signature_bytes(numbers, row)
    if row.has_curve_params or size is None:
        return None
    parameters = None if row.param is None else (ctypes.c_ulong * len(row.param))(*row.param)
    signing = keys.private.repeated("Sign", row.mechanism, parameters)
    if signing is None:
        return None

    def sign_one(signing_input: bytes) -> bytes | None:
        signature = signing(_digested(row, signing_input), most_bytes=size)
        if signature is not None and not software.is_valid(numbers, row, signing_input, signature):
            raise WrongResult("signature")
        return signature

    return sign_one


def sign_digest(keys: Keys, row: SignatureAlgorithm, digest: bytes) -> bytes:
    """Return the same of what has the ``digest``, as long as the hash of ``row``."""
    signature = keys.private.sign(
        _with_info(row.digest_mechanism, digest),
        mechanism=row.digest_mechanism,
        mechanism_param=row.param,
    )
    if not software.is_valid_of_digest(keys.public.numbers, row, digest, signature):
        raise WrongResult("signature")
    return signature


def verify(keys: Keys, row: SignatureAlgorithm, signing_input: bytes, signature: bytes) -> bool:
    """Tell whether ``signature`` is one; of a wrong length it never reaches the token.

    An error that may be the token's own is not its word: then the signature is verified here, too.
    tpm2-pkcs11 answers CKR_GENERAL_ERROR where the TPM has no room for the public key just now.
    """
    if len(signature) != software.signature_bytes(keys.public.numbers, row):
        return False
    digested = _digested(row, signing_input)
    try:
        return keys.public.verify(digested, signature, **_mechanism(keys, row))
    except PKCS11Error as error:
        is_blamed = keys.canary.blames_input(error, keys.session)
        if is_blamed and not software.is_valid(keys.public.numbers, row, signing_input, signature):
            return False
        raise


def round_trip(keys: Keys, row: SignatureAlgorithm, message: bytes, claimed: bytes) -> bool:
    """Tell whether a signature of ``message`` is taken for one of ``claimed``."""
    return verify(keys, row, claimed, sign(keys, row, message))


def _digested(row: SignatureAlgorithm, signing_input: bytes) -> bytes:
    # CKM_ECDSA signs whatever it is given, of any length: the hash is ours to get right.
    if row.hash is None or not row.is_prehashed:
        return signing_input
    return _with_info(row.mechanism, hashlib.new(row.hash.name, signing_input).digest())


def _with_info(mechanism: Mechanism | None, digest: bytes) -> bytes:
    return _DIGEST_INFOS.get((mechanism, len(digest)), b"") + digest


def _mechanism(keys: Keys, row: SignatureAlgorithm) -> dict[str, object]:
    param = _curve_param(keys) if row.has_curve_params else row.param
    return {"mechanism": row.mechanism, "mechanism_param": param}


def _curve_param(keys: Keys) -> tuple[bool, bytes | None] | None:
    curve = curve_of(keys.public.numbers)
    return curve.sign_param if curve else None
