"""What objects one token makes, with what attributes: tried with stored ones, which are gone then.

Some tokens take attributes on session objects that they refuse on stored ones (NSS does), some want
public keys to be private objects (AWS CloudHSM), some forbid it (nShield). TPM 2.0 makes no session
objects, and tpm2-pkcs11 no pairs that may not decrypt.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from pkcs11 import Attribute, ObjectClass, PKCS11Error

from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import KeyKind
from hsm.algorithms.tables import CONTENT_ENCRYPTIONS, MACS
from hsm.cryptoki.attributes import OPTIONAL, STORED_TRIAL, Templates
from hsm.cryptoki.faults import Fault, fault_of, is_mapped
from hsm.cryptoki.handles import bind
from hsm.cryptoki.material import read_public
from hsm.cryptoki.pool import SessionPool
from hsm.cryptoki.session import Session
from hsm.errors import TokenUnavailable
from hsm.life.proof_cache import ProofCache
from hsm.operations import ecdh

Make = Callable[[Templates, Session], Iterable[Any]]
"""Makes objects with templates."""

_CLASSES: Final = (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
_SECRETS: Final = (CONTENT_ENCRYPTIONS["A256GCM"], MACS["HS256"])
_PAIRS: Final = (
    KeySpec(kty="EC", alg="ES256", crv="P-256"),
    KeySpec(kty="OKP", alg="EdDSA", crv="Ed25519"),
    KeySpec(kty="RSA", alg="RS256", bits=2048),
)
_AGREEING: Final = (KeySpec(kty="OKP", alg="ECDH-ES", crv="X25519"),)
_TRIES: Final = 3
_TRIES_IN_TROUBLE: Final = 8
_PAUSE_SECONDS: Final = 0.1
_GONE: Final = (Fault.DOWN, Fault.SESSION_LOST)
_OF_TROUBLE: Final = (*_GONE, Fault.BUSY)
"""What says nothing of templates, unless it is said again and again."""
_NONE: Final[frozenset[Attribute]] = frozenset()
_WITHOUT: Final = tuple(
    Templates(
        of_secrets=_NONE, of_pairs=_NONE, public_is_private=is_private, pairs_decrypt=decrypts
    )
    for decrypts in (False, True)
    for is_private in (False, None, True)
)


def found_templates(pool: SessionPool, proof_cache: ProofCache) -> Templates:
    """Return templates of what the token takes; what others have found is not tried again."""
    templates = _of_attributes(pool, proof_cache)
    templates = replace(templates, kinds=tuple(_kinds(pool, templates, proof_cache)))
    refusal = proof_cache.of("session objects", partial(_refusal_of_session_pairs, pool, templates))
    return replace(templates, stores_trials=refusal is not None)


def clear(session: Session) -> None:
    """Destroy the stored trials that a process has left that was killed meanwhile."""
    for object_class in _CLASSES:
        left = {Attribute.CLASS: object_class, Attribute.ID: STORED_TRIAL["id"]}
        for found in session.find(left):
            session.destroy_if_there(found)


def _refusal_of_session_pairs(pool: SessionPool, templates: Templates) -> str | None:
    """Say that the first kind of pairs that the token makes at all is made only to be stored."""
    for spec in _PAIRS:
        if _takes(pool, partial(_pair, spec, {}), templates):
            return None
        if _takes(pool, partial(_pair, spec, STORED_TRIAL), templates):
            return "refused"
    return None


def _kinds(pool: SessionPool, templates: Templates, proof_cache: ProofCache) -> Iterator[KeyKind]:
    """Give each kind that agrees under other numbers than the first, and not under those."""
    for spec in _AGREEING:
        for way in spec.kind.ways:
            tried = replace(templates, kinds=(way,))
            trial = partial(_refusal, pool, partial(_agreed, spec), tried)
            if proof_cache.of(f"{spec.crv} {way.generation.name}", trial) is None:
                if way is not spec.kind:
                    yield way
                break


def _of_attributes(pool: SessionPool, proof_cache: ProofCache) -> Templates:
    found = proof_cache.of("attributes", partial(_tried, pool))
    if found is None:
        return Templates()
    of_secrets, of_pairs, public_is_private, pairs_decrypt = json.loads(found)
    return Templates(
        of_secrets=frozenset(Attribute[name] for name in of_secrets),
        of_pairs=frozenset(Attribute[name] for name in of_pairs),
        public_is_private=public_is_private,
        pairs_decrypt=pairs_decrypt,
    )


def _tried(pool: SessionPool) -> str | None:
    """Return what is taken as JSON; ``None`` if that is all."""
    with pool.operations.session() as session:
        clear(session)
    secrets = _first(pool, [partial(_secret, row) for row in _SECRETS])
    pairs = _first(pool, [partial(_pair, spec, STORED_TRIAL) for spec in _PAIRS])
    if secrets == pairs == Templates():
        return None
    names = [
        sorted(attribute.name for attribute in attributes)
        for attributes in (secrets.of_secrets, pairs.of_pairs)
    ]
    return json.dumps([*names, pairs.public_is_private, pairs.pairs_decrypt])


def _first(pool: SessionPool, makes: Iterable[Make]) -> Templates:
    """Return what the first kind of objects takes that the token makes at all."""
    found = (_taken(partial(_takes, pool, make)) for make in makes)
    return next((templates for templates in found if templates), Templates())


def _taken(takes: Callable[[Templates], bool]) -> Templates | None:
    whole = Templates()
    if takes(whole):
        return whole
    without = next(filter(takes, _WITHOUT), None)
    if without is None:
        return None
    if without.pairs_decrypt and takes(replace(without, pairs_decrypt=False)):
        raise TokenUnavailable("the token takes what it has refused")
    known = frozenset(filter(lambda attribute: takes(_with(without, attribute)), OPTIONAL))
    return replace(without, of_secrets=known, of_pairs=known)


def _with(templates: Templates, attribute: Attribute) -> Templates:
    only = frozenset({attribute})
    return replace(templates, of_secrets=only, of_pairs=only)


def _takes(pool: SessionPool, make: Make, templates: Templates) -> bool:
    """Tell whether objects are made of ``templates``; trouble that passes is waited out.

    Raises the ``PKCS11Error`` of a token that is gone.
    """
    refusals = 0
    for number in range(1, _TRIES_IN_TROUBLE + 1):
        error = _refused(pool, make, templates)
        if error is None:
            return True
        if fault_of(error) in _OF_TROUBLE and is_mapped(error):
            if number == _TRIES_IN_TROUBLE and fault_of(error) in _GONE:
                raise error
            time.sleep(_PAUSE_SECONDS)
        elif (refusals := refusals + 1) == _TRIES:
            break
    return False


def _refusal(pool: SessionPool, make: Make, templates: Templates) -> str | None:
    return None if _takes(pool, make, templates) else "refused"


def _refused(pool: SessionPool, make: Make, templates: Templates) -> PKCS11Error | None:
    """Return what the token says against ``templates``."""
    try:
        with pool.operations.session() as session:
            for made in make(templates, session):
                session.destroy(made)
    except PKCS11Error as error:
        if fault_of(error) is Fault.PIN:
            raise
        return error
    return None


def _secret(row: Any, templates: Templates, session: Session) -> Iterable[Any]:
    made = session.generate_key(
        row.kind.key_type, 256, **STORED_TRIAL, **templates.secret_generation([row])
    )
    return (made,)


def _pair(
    spec: KeySpec, identity: dict[str, Any], templates: Templates, session: Session
) -> Iterable[Any]:
    return session.generate_keypair(
        spec.kind.key_type, spec.bits, **identity, **templates.pair_generation(spec)
    )


def _agreed(spec: KeySpec, templates: Templates, session: Session) -> Iterable[Any]:
    """Make a pair that agrees on a secret with itself."""
    public, private = session.generate_keypair(
        spec.kind.key_type, spec.bits, **templates.pair_generation(spec)
    )
    own = ecdh.agreement_key(read_public(public))
    ecdh.shared_secret(bind(session, private), templates, own).destroy()
    return public, private
