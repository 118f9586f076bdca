"""Bodies of the keys resource (wire contract §3): what may be created, and what is an import."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from marshmallow import fields, post_load, validates_schema

import hsm
from app.errors import BadRequest
from app.jwk import KEY_TYPES, type_of
from app.jwk.key_type import Material
from app.schemas.fields import (
    CONTENT_ENCRYPTION,
    KEY_TRANSPORT,
    SHOWN,
    Base64Url,
    ProtectedHeader,
    Text,
    WholeNumber,
    refusal,
)
from app.schemas.key_members import KeyMembers
from app.schemas.messages import require_encrypted_key
from app.schemas.schema import RequestSchema
from hsm import KeySpec

_IMPORTS: Final = frozenset(row.private_members[0] for row in KEY_TYPES.values())
"""Members that make a body an import."""

Members = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """A key to generate or, with ``material``, to import: checked, and never shown.

    What takes a processor for long is left to ``prove``, which raises ``BadRequest``.
    """

    spec: KeySpec
    material: Material | None = None
    prove: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<KeyRequest {self.spec}>"


def _material() -> Base64Url:
    return Base64Url(load_default=None, allow_none=True)


class CreateKeyRequest(RequestSchema):
    """POST /keys: a JWK (RFC 7517), with key material or without."""

    kty = Text(required=True)
    alg = Text(load_default=None, allow_none=True)
    crv = Text(load_default=None, allow_none=True)
    bits = WholeNumber(load_default=None, allow_none=True)
    k = _material()
    n = _material()
    e = _material()
    d = _material()
    p = _material()
    q = _material()
    dp = _material()
    dq = _material()
    qi = _material()
    x = _material()
    y = _material()
    pub = _material()
    priv = _material()

    @post_load
    def make(self, body: dict[str, Any], **_kwargs: Any) -> KeyRequest:
        """Return the request; raise ``BadRequest`` for what does not go together."""
        spec = _spec(body)
        members = [name for name, field in self.fields.items() if isinstance(field, Base64Url)]
        given = dict.fromkeys(name for name in members if body[name] is not None).keys()
        request = _import(spec, body) if _is_import(given) else _generation(spec, body)
        _require_offered(spec)
        return request


class KeyResponse(KeyMembers):
    """A created key; ``published`` is only there for a generated pair that signs."""

    published = fields.Boolean()


class UnwrapRequest(RequestSchema):
    """POST /keys/unwrap."""

    protected = ProtectedHeader(alg=KEY_TRANSPORT, enc=CONTENT_ENCRYPTION)
    encrypted_key = Base64Url(required=True)

    @validates_schema
    def check_lengths(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse an empty key."""
        require_encrypted_key(body)


def _spec(body: Members) -> KeySpec:
    kty, alg = body["kty"], body["alg"]
    if kty not in KEY_TYPES:
        raise BadRequest(f"Field 'kty' must be one of: {', '.join(KEY_TYPES)}")
    if alg is None and KEY_TYPES[kty].is_alg_required:
        raise BadRequest(f"Field 'alg' is required for key type '{kty}'")
    crvs = list(hsm.algorithms_by_crv(kty, alg))
    if not crvs:
        shown = str(alg)[:SHOWN]
        raise BadRequest(f"Algorithm '{shown}' is not compatible with key type '{kty}'.")
    return KeySpec(kty=kty, alg=alg, crv=_crv(kty, body["crv"], crvs))


def _crv(kty: str, crv: str | None, crvs: list[str | None]) -> str | None:
    if crvs == [None]:
        return None
    crv = crvs[0] if crv is None and KEY_TYPES[kty].is_crv_optional else crv
    if crv is None:
        raise BadRequest(f"Field 'crv' is required for key type '{kty}'")
    if crv not in crvs:
        raise BadRequest(
            f"Field 'crv' must be one of these for the key: {', '.join(map(str, crvs))}"
        )
    return crv


def _is_import(given: Set[str]) -> bool:
    if given and given.isdisjoint(_IMPORTS):
        raise BadRequest(
            f"Field '{next(iter(given))}' is of a key to import, and its 'd' or 'k' is missing; "
            "to generate a key leave it out"
        )
    return bool(given)


def _generation(spec: KeySpec, body: Members) -> KeyRequest:
    sizes = type_of(spec).sizes(spec.alg)
    bits = sizes.chosen(body["bits"]) if sizes else None
    return KeyRequest(spec=replace(spec, bits=bits))


def _import(spec: KeySpec, body: Members) -> KeyRequest:
    key_type = type_of(spec)
    material = key_type.read_private(spec, body)
    return KeyRequest(
        spec=replace(spec, bits=key_type.bits_of(material)),
        material=material,
        prove=partial(key_type.prove_private, material) if key_type.prove_private else None,
    )


def _require_offered(spec: KeySpec) -> None:
    refusals = {row.name: refusal(row.name, spec.crv) for row in spec.algorithms}
    if None not in refusals.values():
        name, reason = next(iter(refusals.items()))
        raise hsm.UnsupportedAlgorithm.not_offered(name, str(reason))
