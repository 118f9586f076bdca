"""Keys that somebody else has made on the token, taken into the registry as they are."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from uuid import UUID, uuid4

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

import hsm
from app.errors import BadRequest
from app.jwk import require_sound, type_of, write_public
from app.kid import is_kid
from app.pkcs11_uri import SCHEME, read_uri
from app.registry import Key, Origin, Registry, Residency, State
from app.rights import is_principal
from hsm import Hsm, KeySpec, OtherName


def adopt(  # noqa: PLR0913  # the options of the command
    registry: Registry,
    token: Hsm,
    name: str,
    *,
    owner: str,
    alg: str | None = None,
    public_key: bytes | None = None,
) -> Key:
    """Take the key ``name`` into the registry, after proving what it can do.

    ``name`` is a CKA_ID in hexadecimal or as a kid, a label, or a URI (RFC 7512). ``public_key`` is
    the public half in PEM, for tokens that do not say it. The key gets our CKA_LABEL, and a kid for
    its CKA_ID unless that is as long as one already. Killed in between, this leaves a key with our
    name and no row, which ``reconcile`` reports, and which can be adopted by its kid.
    """
    if not is_principal(owner):
        raise BadRequest(f"'{owner}' is not the name of a principal")
    public = None if public_key is None else _public(public_key)
    for reading in _readings(name, token):
        other = replace(reading, public=public)
        try:
            found = token.adoptable(other)
            break
        except hsm.KeyNotFound:
            continue
    else:
        raise hsm.KeyNotFound
    is_free = found.kid is not None and _is_free(registry, found.kid)
    if found.is_ours and not is_free:
        raise hsm.CryptoFailure("The key is one of ours already")
    kid = found.kid if found.kid and is_free else uuid4()
    key = _record(found, kid, _chosen(_sound(found), alg), owner)
    token.rename(key.ref, other, partial(registry.insert, key))
    return key


def _readings(name: str, token: Hsm) -> list[OtherName]:
    """Return what ``name`` may mean, the first that is found."""
    if name.startswith(SCHEME):
        attributes = read_uri(name)
        attributes.require_place(token.places)
        return [attributes.name]
    try:
        key_id = UUID(name).bytes if is_kid(name) else bytes.fromhex(name)
        return [OtherName(key_id=key_id), OtherName(label=name)]
    except ValueError:
        return [OtherName(label=name)]


def _public(pem: bytes) -> hsm.PublicKey:
    with suppress(ValueError, UnsupportedAlgorithm):
        key = load_pem_public_key(pem)
        if isinstance(key, hsm.PublicKey):
            return key
    raise BadRequest("The public key is not one in PEM of a kind that the service knows")


def _sound(found: hsm.Adoptable) -> Mapping[str, KeySpec]:
    """Return what the key could be; raise ``BadRequest`` if it could not be imported either."""
    specs = {name: spec for name, spec in found.specs.items() if _is_of_size(spec)}
    try:
        if found.public is not None:
            require_sound(found.public)
    except BadRequest as error:
        raise BadRequest(f"The key would not be imported either: {error}") from None
    if not specs:
        raise BadRequest("The key would not be imported either: it is too long")
    return specs


def _is_of_size(spec: KeySpec) -> bool:
    sizes = type_of(spec).sizes(spec.alg)
    return sizes is None or spec.bits in sizes.imported


def _is_free(registry: Registry, kid: UUID) -> bool:
    return registry.whole(kid, frozenset(State)) is None


def _chosen(specs: Mapping[str, KeySpec], alg: str | None) -> KeySpec:
    """Return what the key shall be: what ``alg`` says, or what it can only be.

    What only keys do that are bound to it has to be asked for, unless there is nothing else.
    """
    if alg is not None and alg in specs:
        return specs[alg]
    first = {name: spec for name, spec in specs.items() if not _is_other_name(name, specs)}
    usual = [spec for name, spec in first.items() if not hsm.ALGORITHMS[name].is_bound_only]
    chosen = usual or list(first.values())
    if alg is not None or len(chosen) > 1:
        raise BadRequest(f"Name one algorithm that the key can do: {', '.join(sorted(specs))}")
    return chosen[0]


def _is_other_name(name: str, specs: Mapping[str, KeySpec]) -> bool:
    return hsm.ALGORITHMS[name].first_name in specs.keys() - {name}


def _record(found: hsm.Adoptable, kid: UUID, spec: KeySpec, owner: str) -> Key:
    return Key(
        kid=kid,
        kid_public=uuid4() if found.public and found.is_local else None,
        owner=owner,
        spec=spec,
        origin=Origin.GENERATED if found.is_local else Origin.IMPORTED,
        residency=Residency.TOKEN if found.is_local else Residency.PROCESS,
        state=State.ACTIVE,
        public_jwk=write_public(found.public) if found.public else None,
    )
