"""Proofs that a token keeps keys wrapped: one of each kind is made, wrapped and used."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final
from uuid import uuid4

from pkcs11 import Attribute

from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import RSA
from hsm.cryptoki.objects import PUBLIC, objects_of
from hsm.cryptoki.session import Session
from hsm.errors import require
from hsm.importing.imports import Target
from hsm.importing.proof import specs_of_every_kind
from hsm.life.offer import first_offered
from hsm.life.proof_cache import ProofCache
from hsm.life.refusal import refusal_of
from hsm.life.token import Token, round_trip
from hsm.messages import KeyRef, Storage
from hsm.storage.keepable import NOTHING_KEPT, Keepable
from hsm.storage.stores import wrapped_store_of
from hsm.storage.wrapped_store import WrappedStore

_RSA_BITS: Final = 2048
_PROBE: Final = b"jose-hsm"


def found_keepable(token: Token, proof_cache: ProofCache) -> Keepable:
    """Return what can be kept wrapped; what others have found is not tried again.

    Raises ``PKCS11Error`` or ``TokenUnavailable`` if the token fails in a way that says nothing of
    that.
    """
    store = wrapped_store_of(token.stores)
    if store.kek is None:
        return NOTHING_KEPT

    def refusal(target: Target, spec: KeySpec) -> str | None:
        attempt = partial(_attempt, token, store, spec)
        trial = partial(refusal_of, token.pool, attempt, token.canary.works)
        return proof_cache.refusal(f"kept wrapped {target}", trial)

    specs = specs_of_every_kind(token)
    refusals = {target: refusal(target, _sized(spec)) for target, spec in specs.items()}
    return Keepable(kek=store.kek, refusals=MappingProxyType(refusals))


def _sized(spec: KeySpec) -> KeySpec:
    """Return ``spec`` with the length of a small key, where keys of its kind have lengths."""
    smallest_bits = 8 * spec.algorithms[0].smallest_bytes or None
    return replace(spec, bits=_RSA_BITS if spec.kind is RSA else smallest_bits)


def _attempt(token: Token, store: WrappedStore, spec: KeySpec, session: Session) -> None:
    """Make a key, wrap it, unwrap it, and use it; raise ``HsmError`` if it is not guarded."""
    ref = store.make(session, KeyRef(kid=uuid4(), spec=spec, storage=Storage.WRAPPED)).ref
    row = first_offered(spec, token.offers)
    with store.lent(session, ref, objects_of(spec)) as keys:
        try:
            require(round_trip(keys, token, row, _PROBE))
        finally:
            store.destroy(session, ref)
    for name, made in store.unwrapped(session, ref).objects.items():
        guards = {} if name == PUBLIC else _guards(session, made)
        session.destroy(made)
        require(guards.get(Attribute.EXTRACTABLE, False) is False)
        require(guards.get(Attribute.SENSITIVE, True) is True)


def _guards(session: Session, made: Any) -> Mapping[Attribute, Any]:
    return {name: session.read(made, name) for name in (Attribute.EXTRACTABLE, Attribute.SENSITIVE)}
