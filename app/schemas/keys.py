"""Bodies of the keys resource (wire contract §3): what may be created, and what is an import."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from marshmallow import fields, post_load, validates_schema

import hsm
from app.errors import BadRequest
from app.jwk import KEY_TYPES, PAIR_TYPES, PRIVATE_MEMBERS, read_sound, type_of
from app.jwk.key_type import Material
from app.jwk.members import require_given
from app.jwk.purpose import Purpose
from app.schemas.fields import (
    CONTENT_ENCRYPTION,
    KEY_TRANSPORT,
    SHOWN,
    Base64Url,
    Choice,
    Flag,
    KeyOperations,
    Text,
    WholeNumber,
    refusal,
)
from app.schemas.key_members import KeyMembers
from app.schemas.labels import AliasOfNew, Duration, Instant, Labels, Name, TagsField
from app.schemas.messages.addressed import RecipientsField
from app.schemas.messages.encryption import jwe_members, require_encrypted_key
from app.schemas.messages.received_header import ProtectedHeader
from app.schemas.schema import Foreign, RequestSchema, ResponseSchema
from app.schemas.wrapped import WrappedField, WrappedKey
from hsm import KeySpec, PublicKey, Storage

_IMPORTS: Final = frozenset(row.private_members[0] for row in KEY_TYPES.values())
"""Members that make a body an import."""

MOST_COUNT: Final = 100

_SIZE: Final = Foreign(
    "the size of an RSA key is 'bits', that of others follows from 'alg' or 'crv'"
)
_FOREIGN: Final = MappingProxyType(
    {
        "oth": Foreign("an RSA key has two primes here"),
        "size": _SIZE,
        "length": _SIZE,
        "modulusLength": _SIZE,
    }
)
"""Members that would make another key than the one that is meant, if they were ignored."""

Members = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedMaterial:
    """A key that nobody but the token is to see, and the public half of a pair, checked."""

    wrapped: WrappedKey
    public: PublicKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """A key to generate or, with ``material``, to import: checked, and never shown.

    With ``wrapped`` it comes in so that the token alone sees it.

    What takes a processor for long is left to ``prove``, which raises ``BadRequest``. ``count`` is
    how many keys are asked for, if that was said, and ``storage`` where they are to be kept.
    """

    spec: KeySpec
    material: Material | None = None
    wrapped: WrappedMaterial | None = None
    prove: Callable[[], None] | None = None
    labels: Labels = field(default_factory=Labels)
    storage: Storage | None = None
    count: int | None = None

    def __repr__(self) -> str:
        return f"<KeyRequest {self.spec}>"


def _material() -> Base64Url:
    return Base64Url(load_default=None, allow_none=True)


class CreateKeyRequest(RequestSchema):
    """POST /keys: a JWK (RFC 7517), with key material or without."""

    foreign = _FOREIGN

    kty = Text(required=True)
    alg = Text(load_default=None, allow_none=True)
    crv = Text(load_default=None, allow_none=True)
    bits = WholeNumber(load_default=None, allow_none=True)
    use = Text(load_default=None, allow_none=True)
    key_ops = KeyOperations(load_default=None, allow_none=True)
    digest = Flag(load_default=None, allow_none=True)
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
    name = Name(load_default=None, allow_none=True)
    wrapped = WrappedField(load_default=None, allow_none=True)
    alias = AliasOfNew(*_IMPORTS, "wrapped", load_default=None, allow_none=True)
    tags = TagsField(load_default=None, allow_none=True)
    expires = Instant(load_default=None, allow_none=True)
    destroy_after = Duration(load_default=None, allow_none=True)
    storage = Choice(*Storage, load_default=None, allow_none=True)
    count = WholeNumber(load_default=None, allow_none=True)

    @post_load
    def make(self, body: dict[str, Any], **_kwargs: Any) -> KeyRequest:
        """Return the request; raise ``BadRequest`` for what does not go together."""
        spec = _spec(body)
        members = [name for name, one in self.fields.items() if isinstance(one, Base64Url)]
        given = dict.fromkeys(name for name in members if body[name] is not None).keys()
        if body["digest"]:
            spec = _signing_digests(spec)
        request = _request(spec, body, given)
        _require_offered(request.spec)
        labels = Labels(
            name=body["name"],
            alias=body["alias"],
            tags=body["tags"] or (),
            expires_at=body["expires"],
            destroy_after=body["destroy_after"],
        )
        _require_countable(request, body)
        storage = Storage(body["storage"]) if body["storage"] else None
        return replace(request, labels=labels, storage=storage, count=body["count"])


class KeyResponse(KeyMembers):
    """A created key; ``bits`` is there for RSA, ``published`` for a generated pair that signs."""

    bits = fields.Integer()
    published = fields.Boolean()
    alias = fields.String()
    digest = fields.Boolean()
    destroy_after = Duration()
    storage = fields.String()


class SeveralKeysResponse(ResponseSchema):
    """Created keys, of a request with ``count``."""

    keys = fields.List(fields.Nested(KeyResponse), required=True)


class UnwrapRequest(RequestSchema):
    """POST /keys/unwrap: all that /decrypt takes, and of that the key."""

    protected = ProtectedHeader("kid", alg=KEY_TRANSPORT, enc=CONTENT_ENCRYPTION)
    encrypted_key = Base64Url(required=True)
    kid = Text(load_default=None, allow_none=True)

    def expand_compact(self, members: dict[str, Any]) -> dict[str, Any]:
        """See ``RequestSchema``."""
        return jwe_members(members)

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Check a JWE in whichever form it is."""
        if data.get("recipients") is not None:
            return _GENERAL_UNWRAP.load(data, **kwargs)
        return super().load(data, **kwargs)

    @validates_schema
    def check_lengths(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse an empty key."""
        require_encrypted_key(body)


class GeneralUnwrapRequest(RequestSchema):
    """The same for a JWE of several recipients (RFC 7516 §7.2.1)."""

    recipients = RecipientsField(ProtectedHeader(alg=KEY_TRANSPORT, enc=CONTENT_ENCRYPTION))
    kid = Text(load_default=None, allow_none=True)


_GENERAL_UNWRAP: Final = GeneralUnwrapRequest()


def _spec(body: Members) -> KeySpec:
    kty, alg = body["kty"], body["alg"]
    if kty not in KEY_TYPES:
        raise BadRequest(f"Field 'kty' must be one of: {', '.join(KEY_TYPES)}")
    if alg is None and KEY_TYPES[kty].is_alg_required:
        raise BadRequest(f"Field 'alg' is required for key type '{kty}'{_fitting(body)}")
    crvs = list(hsm.algorithms_by_crv(kty, alg))
    if not crvs:
        shown = str(alg)[:SHOWN]
        raise BadRequest(f"Algorithm '{shown}' is not compatible with key type '{kty}'.")
    return KeySpec(kty=kty, alg=alg, crv=_crv(kty, body["crv"], crvs))


def _signing_digests(spec: KeySpec) -> KeySpec:
    if not spec.digest_algorithms:
        raise BadRequest("Field 'digest' is for keys that sign digests: RSA and EC")
    return replace(spec, signs_digests=True)


def _fitting(body: Members) -> str:
    """Return which algorithms take a key as long as that of ``body``, to end a sentence."""
    key_type = KEY_TYPES[body["kty"]]
    material = body[key_type.private_members[0]]
    sizes = {name: key_type.sizes(name) for name in hsm.ALGORITHMS} if material else {}
    names = [name for name, row in sizes.items() if row and 8 * len(material) in row.imported]
    return f"; a key of {len(material)} bytes may be for: {', '.join(names)}" if names else ""


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


def _request(spec: KeySpec, body: Members, given: Set[str]) -> KeyRequest:
    if body["wrapped"] is not None:
        return _wrapped(spec, body, given)
    return _import(spec, body) if _is_import(given) else _generation(spec, body)


def _require_countable(request: KeyRequest, body: Members) -> None:
    count = body["count"]
    if count is None:
        return
    if not 1 <= count <= MOST_COUNT:
        raise BadRequest(f"Field 'count' must be between 1 and {MOST_COUNT}")
    if request.material is not None or request.wrapped is not None:
        raise BadRequest("Field 'count' is for keys to generate, and not to import")
    if body["alias"] is not None:
        raise BadRequest("Field 'alias' is of one key, and does not go with 'count'")


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
    purpose = Purpose.of(body["use"], body["key_ops"])
    spec = purpose.of_key(spec, key_type.encryption_alg)
    material = key_type.read_private(spec, body)
    return KeyRequest(
        spec=replace(spec, bits=key_type.bits_of(material)),
        material=material,
        prove=partial(key_type.prove_private, material) if key_type.prove_private else None,
    )


def _wrapped(spec: KeySpec, body: Members, given: Set[str]) -> KeyRequest:
    for name in PRIVATE_MEMBERS:
        if name in given:
            raise BadRequest(f"Field '{name}' does not go with 'wrapped'")
    key_type, row = type_of(spec), PAIR_TYPES.get(type_of(spec).kty)
    spec = Purpose.of(body["use"], body["key_ops"]).of_key(spec, key_type.encryption_alg)
    if row is None:
        return KeyRequest(spec=spec, wrapped=WrappedMaterial(wrapped=body["wrapped"]))
    kind = f"a wrapped key of type '{spec.kty}'"
    octets = {name: require_given(body, name, kind) for name in row.public_members}
    public = read_sound(row, spec.crv or "", octets)
    return KeyRequest(
        spec=replace(spec, bits=key_type.bits_of(public)),
        wrapped=WrappedMaterial(wrapped=body["wrapped"], public=public),
    )


def _require_offered(spec: KeySpec) -> None:
    refusals = {row.name: refusal(row.name, spec.crv) for row in spec.algorithms}
    if None not in refusals.values():
        name, reason = next(iter(refusals.items()))
        raise hsm.UnsupportedAlgorithm.not_offered(name, str(reason))
