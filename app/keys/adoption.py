"""Keys that somebody else has made on the token, taken into the registry as they are."""

from collections.abc import Mapping
from urllib.parse import unquote_to_bytes
from uuid import UUID, uuid4

import hsm
from app.errors import BadRequest
from app.jwk import write_public
from app.keys.catalogue import is_principal
from app.registry import Key, Origin, Registry, Residency, State
from hsm import Hsm, KeySpec


def adopt(registry: Registry, token: Hsm, name: str, *, owner: str, alg: str | None = None) -> Key:
    """Take the key ``name`` into the registry, after proving what it can do.

    ``name`` is a CKA_ID in hexadecimal, a label, or a URI (RFC 7512). The key gets our CKA_LABEL,
    and a kid for its CKA_ID unless that is as long as one already. Killed in between, this leaves
    a key with our name and no row, which ``reconcile`` reports and leaves alone.
    """
    if not is_principal(owner):
        raise BadRequest(f"'{owner}' is not the name of a principal")
    for key_id, label in _readings(name):
        try:
            found = token.adoptable(key_id=key_id, label=label)
            break
        except hsm.KeyNotFound:
            continue
    else:
        raise hsm.KeyNotFound
    kid = found.kid if found.kid and _is_free(registry, found.kid) else uuid4()
    key = _record(found, kid, _chosen(found.specs, alg), owner)
    token.rename(kid, key_id=key_id, label=label)
    registry.insert(key)
    return key


def _readings(name: str) -> list[tuple[bytes | None, str | None]]:
    """Return what ``name`` may mean: CKA_ID and label, either of which may be missing."""
    if name.startswith("pkcs11:"):
        return [_of_uri(name)]
    try:
        return [(bytes.fromhex(name), None), (None, name)]
    except ValueError:
        return [(None, name)]


def _of_uri(uri: str) -> tuple[bytes | None, str | None]:
    path = uri.removeprefix("pkcs11:").partition("?")[0]
    named = dict(part.partition("=")[::2] for part in path.split(";"))
    key_id = unquote_to_bytes(named["id"]) if "id" in named else None
    label = unquote_to_bytes(named["object"]).decode() if "object" in named else None
    if key_id is None and label is None:
        raise BadRequest("The URI names no key: it has neither 'id' nor 'object'")
    return key_id, label


def _is_free(registry: Registry, kid: UUID) -> bool:
    return kid not in registry.specs()


def _chosen(specs: Mapping[str, KeySpec], alg: str | None) -> KeySpec:
    """Return what the key shall be: what ``alg`` says, or what it can only be.

    What only keys do that are bound to it has to be asked for, unless there is nothing else.
    """
    if alg is not None and alg in specs:
        return specs[alg]
    usual = [spec for name, spec in specs.items() if not hsm.ALGORITHMS[name].is_bound_only]
    chosen = usual or list(specs.values())
    if alg is not None or len(chosen) > 1:
        raise BadRequest(f"Name one algorithm that the key can do: {', '.join(sorted(specs))}")
    return chosen[0]


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
