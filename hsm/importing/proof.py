"""Proofs that a token imports wrapped keys: one of each kind is wrapped for it and tried."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from types import MappingProxyType
from typing import Any, Final, cast

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pkcs11 import Mechanism, Object, PKCS11Error

from hsm.algorithms.families import RsaOaep
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import AES, EC, EDWARDS, HMAC, MONTGOMERY, RSA
from hsm.algorithms.tables import ALGORITHMS, KEY_MANAGEMENTS
from hsm.cryptoki.faults import Fault, fault_of, name_of
from hsm.cryptoki.handles import Handle, Key, PublicHandle, PublicObject
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.session import Session
from hsm.errors import HsmError, TokenUnavailable, require
from hsm.importing.imports import WRAPPING_ALGS, Imports, Target, target_of
from hsm.importing.unwrapping import is_that_key
from hsm.importing.ways import OneStep, TwoSteps, Way, WrappedKey
from hsm.life.proof_cache import ProofCache
from hsm.life.refusal import require_well
from hsm.life.token import Token
from hsm.software.key_wrapping import wrap_key

WAYS: Final[tuple[Way, ...]] = (
    OneStep(),
    TwoSteps(mechanism=Mechanism.AES_KEY_WRAP_KWP),
    TwoSteps(mechanism=Mechanism.AES_KEY_WRAP_PAD),
)
"""The best first."""

_ENC: Final = "A256GCM"
_RSA_BITS: Final = 2048
_TRIES: Final = 3
_REFUSED: Final = "the token does not unwrap such keys"

SAMPLES: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        RSA.name: lambda _: rsa.generate_private_key(65537, _RSA_BITS),
        EC.name: lambda spec: ec.generate_private_key(spec.curve.weierstrass),
        EDWARDS.name: lambda spec: spec.curve.private_class.generate(),
        MONTGOMERY.name: lambda spec: spec.curve.private_class.generate(),
        AES.name: lambda spec: os.urandom(spec.algorithms[0].smallest_bytes),
        HMAC.name: lambda spec: os.urandom(spec.algorithms[0].smallest_bytes),
    }
)
"""A key of each kind that may come in wrapped, made in software."""


def found_imports(token: Token, proof_cache: ProofCache) -> Imports:
    """Return what the token imports wrapped; what others have found is not tried again.

    A mechanism that it does not even list is not tried either, nor believed because it is listed.
    Raises ``PKCS11Error`` or ``TokenUnavailable`` if it fails in a way that says nothing of that.
    """
    alg = next((name for name in WRAPPING_ALGS if unwraps_within(token, name)), None)
    if alg is None:
        return Imports()
    listed = token.pool.listed
    ways: dict[Target, Way] = {}
    refusals: dict[Target, str] = {}
    with _trials(token, alg) as refusal:
        for target, spec in specs(token).items():
            for way in (each for each in WAYS if int(each.mechanism) in listed):
                name = f"import {spec.kind.name} {spec.crv} {alg} {way.mechanism.name}"
                reason = proof_cache.of(name, partial(refusal, spec, way))
                if reason is None:
                    ways[target] = way
                    break
                refusals[target] = reason
    return Imports(alg=alg, ways=MappingProxyType(ways), refusals=MappingProxyType(refusals))


def unwraps_within(token: Token, name: str) -> bool:
    """Tell whether what RSA-OAEP unwraps stays in the token."""
    offer = token.offers[name].with_enc(_ENC)
    return offer.is_offered and offer.residency == "token"


def specs(token: Token) -> Mapping[Target, KeySpec]:
    """Return one key to import for each kind and curve of which there is a sample."""
    every = specs_of_every_kind(token)
    return {target: spec for target, spec in every.items() if spec.kind.name in SAMPLES}


def specs_of_every_kind(token: Token) -> Mapping[Target, KeySpec]:
    """Return one key to try for each kind and curve that the token has an algorithm for.

    Keys of several objects are none.
    """
    found: dict[Target, KeySpec] = {}
    for row in ALGORITHMS.values():
        for kind, curve in row.keys:
            crv = curve.crv if curve else None
            if token.offers[row.name].refusal(crv) is None and len(row.parts) == 1:
                spec = KeySpec(kty=kind.ktys[0], alg=row.name, crv=crv)
                found.setdefault(target_of(spec), spec)
    return found


@contextmanager
def _trials(token: Token, alg: str) -> Iterator[Callable[[KeySpec, Way], str | None]]:
    """Give what tries a key in a way; a pair to wrap for is made when it is needed."""
    made: list[Object] = []

    @cache
    def pair(*, is_one_step: bool) -> tuple[PublicHandle, Handle]:
        spec = KeySpec(kty="RSA", alg=alg, bits=_RSA_BITS, unwraps_keys=is_one_step)
        arguments = token.templates.pair_generation(spec)
        pair = token.pool.anchor.generate_keypair(spec.kind.key_type, spec.bits, **arguments)
        made.extend(pair)
        public, private = pair
        return PublicHandle.of(public), Handle.of(private)

    def attempt(session: Session, spec: KeySpec, way: Way) -> None:
        public, private = pair(is_one_step=way.is_one_step)
        keys = Keys.pair(token.canary, PublicObject(session, public), Key(session, private))
        sample = SAMPLES[spec.kind.name](spec)
        row = cast(RsaOaep, KEY_MANAGEMENTS[alg])
        octets = wrap_key(cast(rsa.RSAPublicKey, public.numbers), row, sample)
        wrapped = WrappedKey.of(octets, _RSA_BITS // 8)
        half = sample.public_key() if spec.kind.is_pair else None
        with way.opened(keys, row, token.templates, wrapped) as unwrap:
            require(is_that_key(keys, token, spec, unwrap, half))

    def refusal(spec: KeySpec, way: Way) -> str | None:
        return _refusal(token, partial(attempt, spec=spec, way=way))

    try:
        yield refusal
    finally:
        for each in made:
            token.pool.anchor.destroy(each)


def _refusal(token: Token, attempt: Callable[[Session], None]) -> str | None:
    """Return why ``attempt`` fails each time, on a token that is well.

    What it answers is not waited out, as in ``refusal_of``: SoftHSM has one error for what it lacks
    and for what has gone wrong, and there are kinds that it always refuses.
    """
    reason = _REFUSED
    for _ in range(_TRIES):
        try:
            with token.pool.operations.session() as session:
                attempt(session)
        except TokenUnavailable:
            raise
        except HsmError:
            reason = _REFUSED
        except PKCS11Error as error:
            if fault_of(error) is Fault.PIN:
                raise
            reason = f"the token answers {name_of(error)}"
        else:
            return None
        require_well(token.pool, token.canary.works)
    return reason
