"""Bodies that no schema of marshmallow describes, and what the others demand of several members."""

from collections.abc import Mapping
from typing import Final

import hsm
from app.http import operations
from app.http.views import index
from app.jwk import KEY_TYPES, PAIR_TYPES, PRIVATE_MEMBERS, rsa
from app.registry import Origin, Residency, VersionState
from app.rights import GRANTABLE
from app.schemas import batch, catalogue, keysets, labels, random
from app.schemas.keys import MOST_COUNT
from app.schemas.messages.serializations import (
    COMPACT,
    JWE_OTHERS,
    JWE_PARTS,
    JWS_OTHERS,
    JWS_PARTS,
)
from app.schemas.public_jwk import AGREEMENT_CRVS
from scripts.openapi.examples import EXCHANGES
from scripts.openapi.operations import OPERATIONS, Operation
from scripts.openapi.responses import statuses
from scripts.openapi.types import (
    BASE64URL,
    DETACHED,
    DURATION,
    JsonSchema,
    compact,
    nullable,
    one_of,
    reference,
)

_TEXT: Final[JsonSchema] = {"type": "string"}
_INTEGER: Final[JsonSchema] = {"type": "integer"}
_FLAG: Final[JsonSchema] = {"type": "boolean"}
_OCTETS: Final[JsonSchema] = dict(BASE64URL)
_STORAGES: Final = [str(storage) for storage in hsm.Storage]
_STORAGE: Final[JsonSchema] = {"type": "string", "enum": _STORAGES}


def _object(*optional: str, **properties: JsonSchema) -> JsonSchema:
    """Return an object with these members, all of them there but the ``optional``."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _array(items: JsonSchema) -> JsonSchema:
    return {"type": "array", "items": items}


def _map(values: JsonSchema) -> JsonSchema:
    return {"type": "object", "additionalProperties": values}


# --- Keys ---


def _creation(kty: str) -> JsonSchema:
    """Return what the type of a new key demands of the other members."""
    algs = [name for name in hsm.ALGORITHMS if hsm.algorithms_by_crv(kty, name)]
    needs_alg = KEY_TYPES[kty].is_alg_required
    alg: JsonSchema = {"type": "string", "enum": algs}
    crvs = [
        crv
        for crv in dict.fromkeys(crv for name in algs for crv in hsm.algorithms_by_crv(kty, name))
        if crv is not None
    ]
    needs_crv = bool(crvs) and not KEY_TYPES[kty].is_crv_optional
    crv: JsonSchema = {"type": "string", "enum": crvs}
    return {
        "title": kty,
        "properties": {
            "kty": {"const": kty},
            "alg": alg if needs_alg else nullable(alg),
            **({"crv": crv if needs_crv else nullable(crv)} if crvs else {}),
        },
        "required": ["kty", *(["alg"] if needs_alg else ()), *(["crv"] if needs_crv else ())],
        "anyOf": [{"dependentRequired": _together(kty)}, _wrapped(kty)],
    }


def _wrapped(kty: str) -> JsonSchema:
    """Return what a wrapped key has: its public members, and no private ones."""
    public = [*KEY_TYPES[kty].public_members, "wrapped"]
    return {"required": public, "not": _any_of(KEY_TYPES[kty].private_members)}


_WRAPPING_KIDS: Final = [
    one["response"]["kid"] for one in EXCHANGES if one["operation"] == "keys_wrapping_key"
]


def _together(kty: str) -> dict[str, list[str]]:
    """Return which members come only with others: those that every import has."""
    row = KEY_TYPES[kty]
    with_others = {
        name: [other for other in row.imported_members if other != name]
        for name in (*row.public_members, *row.imported_members)
    }
    return {name: others for name, others in with_others.items() if others}


_PUBLIC_OCTETS: Final = tuple(
    dict.fromkeys(name for row in PAIR_TYPES.values() for name in row.public_members)
)


def _brought_jwk(crvs: Mapping[str, tuple[str, ...]]) -> JsonSchema:
    """Return a public key that a caller brings along, on one of the curves of its type."""
    octets = dict.fromkeys(
        (name for kty in crvs for name in PAIR_TYPES[kty].public_members), _OCTETS
    )
    text = {name: nullable(_TEXT) for name in ("use", "alg", "kid")}
    jwk = _object(
        *("crv", *octets, *text, "key_ops"),
        kty={"type": "string", "enum": list(crvs)},
        crv=_TEXT,
        **octets,
        **text,
        key_ops=nullable(_array(_TEXT)),
    )
    by_kty = [
        {
            "title": kty,
            "properties": {
                "kty": {"const": kty},
                **({"crv": {"enum": list(crvs[kty])}} if crvs[kty] else {}),
            },
            "required": [*(("crv",) if crvs[kty] else ()), *PAIR_TYPES[kty].public_members],
        }
        for kty in crvs
    ]
    return jwk | {"oneOf": by_kty, "not": _any_of(PRIVATE_MEMBERS)}


def _jwk() -> JsonSchema:
    """Return a public key as we show it."""
    octets = dict.fromkeys(_PUBLIC_OCTETS, _OCTETS)
    return _object(
        *("crv", "alg", *octets, "x5c", "x5t#S256"),
        kty={"type": "string", "enum": list(PAIR_TYPES)},
        crv={"type": "string", "enum": [crv for row in PAIR_TYPES.values() for crv in row.crvs]},
        **octets,
        alg=_TEXT,
        kid=_TEXT,
        use={"type": "string", "enum": ["sig", "enc"]},
        **{"x5c": _array(_TEXT), "x5t#S256": _OCTETS},
    )


# --- What is offered ---

_SPARSE: Final[Mapping[str, JsonSchema]] = {
    "bits": reference("Sizes"),
    "refused_crvs": _map(_TEXT),
}
"""What some algorithms have and others lack."""

_KEYS: Final = _array(reference("KeyKind"))
_OPERATIONS: Final = _map(reference("Offered"))
_LIMITS: Final = (
    *("body_bytes", "batch_requests", "encryptions_per_key", "listed_keys", "published_keys"),
    "random_bytes",
)


# --- Batches ---


def _part(op: str) -> JsonSchema:
    members: dict[str, JsonSchema] = {
        "op": {"const": op},
        "id": {"type": ["string", "integer", "null"]},
        "body": one_of(_batched()[op].body),
    }
    return {"title": op, **_object("id", **members)}


def _batched() -> dict[str, Operation]:
    """Return each operation that a batch may hold."""
    return {
        op: OPERATIONS[one.endpoint.replace(".", "_")] for op, one in operations.OPERATIONS.items()
    }


def _batch_response() -> JsonSchema:
    names = [name for one in _batched().values() for name in one.answers]
    bodies = [reference(name) for name in dict.fromkeys((*names, "Error"))]
    part = _object(
        "id",
        id={"type": ["string", "integer"]},
        status=_INTEGER,
        body={"anyOf": bodies},
    )
    return _object(responses=_array(part))


# --- All of them ---


def _any_of(names: tuple[str, ...]) -> JsonSchema:
    """Return the schema of what has one of these members."""
    held = [{"required": [name]} for name in names]
    return {"anyOf": held} if len(held) > 1 else held[0]


_WHOLE_JWE: Final[JsonSchema] = {"anyOf": [compact(len(JWE_PARTS)), {"type": "object"}]}


def own() -> dict[str, JsonSchema]:
    """Return the schemas without one of marshmallow, by name."""
    return {
        "CompactDecryptRequest": _object("kid", jwe=compact(len(JWE_PARTS)), kid=nullable(_TEXT)),
        "CompactRewrapRequest": _object(
            "kid", jwe=_WHOLE_JWE, to=reference("TargetRequest"), kid=nullable(_TEXT)
        ),
        "CompactRewrapResponse": _object(jwe=_WHOLE_JWE),
        "CompactUnwrapRequest": _object("kid", jwe=compact(len(JWE_PARTS)), kid=nullable(_TEXT)),
        "CompactVerifyRequest": _object(
            *("kid", "jwk"),
            jws=compact(len(JWS_PARTS)),
            kid=nullable(_TEXT),
            jwk=nullable(reference("PublicJwk")),
        ),
        "DetachedVerifyRequest": _object(
            *("kid", "jwk"),
            jws=dict(DETACHED),
            data=_OCTETS,
            kid=nullable(_TEXT),
            jwk=nullable(reference("PublicJwk")),
        ),
        "PublicJwk": _brought_jwk({kty: row.signing_crvs for kty, row in PAIR_TYPES.items()}),
        "RecipientJwk": _brought_jwk(
            {kty: crvs for kty, crvs in AGREEMENT_CRVS.items() if crvs or kty == "RSA"}
        ),
        "CompactEncryptResponse": _object(jwe=compact(len(JWE_PARTS))),
        "CompactSignResponse": _object(jws=compact(len(JWS_PARTS))),
        "Rotation": _object(**dict.fromkeys(keysets.DURATIONS, DURATION)),
        "KeySetGrantsResponse": _object(keyset=_TEXT, grants=_array(reference("GrantResponse"))),
        "GrantsResponse": _object(kid=_TEXT, grants=_array(reference("GrantResponse"))),
        "BatchResponse": _batch_response(),
        "Jwk": _jwk(),
        "JwkSet": _object(keys=_array(reference("Jwk"))),
        "KeyKind": _object(
            "crv", kty={"type": "string", "enum": list(KEY_TYPES)}, crv={"type": "string"}
        ),
        "Sizes": _object(generated=_array(_INTEGER), imported=_object(min=_INTEGER, max=_INTEGER)),
        "Offered": _object("reason", offered=_FLAG, reason=_TEXT),
        "OfferedAlgorithm": _object(*_SPARSE, keys=_KEYS, **_SPARSE, operations=_OPERATIONS),
        "OfferedKeyManagement": _object(
            *_SPARSE,
            keys=_KEYS,
            **_SPARSE,
            enc=_map(_object("cek", operations=_OPERATIONS, cek=_TEXT)),
        ),
        "OfferedContentEncryption": _object(
            *("bits", "reason", "most_bytes"),
            bits=reference("Sizes"),
            offered=_FLAG,
            reason=_TEXT,
            most_bytes=_INTEGER,
        ),
        "OfferedImport": _object(
            *("crv", "reason"),
            kty=_TEXT,
            crv=_TEXT,
            algs={"type": "array", "items": _TEXT},
            offered=_FLAG,
            reason=_TEXT,
        ),
        "Capabilities": _object(
            fips=_FLAG,
            cek={"type": "string", "enum": ["process", "token"]},
            signatures=_map(reference("OfferedAlgorithm")),
            macs=_map(reference("OfferedAlgorithm")),
            key_managements=_map(reference("OfferedKeyManagement")),
            content_encryptions=_map(reference("OfferedContentEncryption")),
            storage=reference("Storages"),
            limits=_object(**dict.fromkeys(_LIMITS, _INTEGER)),
            wrapped_imports={"type": "array", "items": reference("OfferedImport")},
        ),
        "Storages": _object(
            default=_STORAGE,
            wrapped_keys=_object(
                *("reason", "refused"),
                offered=_FLAG,
                reason=_TEXT,
                refused=_array(_object("crv", kty=_TEXT, crv=_TEXT, reason=_TEXT)),
            ),
        ),
        "Index": _object("docs", **dict.fromkeys(index.LINKS, _TEXT), docs=_TEXT),
        "Live": _object(status={"const": "live"}),
        "Ready": _object(state={"const": "ready"}, epoch={"type": "integer", "minimum": 1}),
        "OpenApi": {"type": "object"},
        "Error": {
            **_object(error={"type": "string", "enum": sorted(statuses())}, description=_TEXT),
            "additionalProperties": False,
        },
    }


PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("VerifyRequest", "FlattenedVerifyRequest"), ("header",)),
    **dict.fromkeys(
        ("DecryptRequest", "RewrapRequest", "UnwrapRequest"), ("unprotected", "header")
    ),
}
"""The parts of a header that are not protected, in the JSON Serializations."""

NAMING: Final = (
    *("SignRequest", "ProtectedSignRequest", "EncryptRequest", "MacRequest", "CompactMacRequest"),
    "TargetRequest",
)
"""Requests that name a key: by its kid, or as the current version of a key set."""

SHARED_PARTS: Final = ("GeneralDecryptRequest", "GeneralRewrapRequest", "GeneralUnwrapRequest")
"""Messages whose recipients share the parts of the header but one."""


_ONE_JWS: Final = ("jws", "jwk", "protected", "header", "signature")


def demands() -> dict[str, JsonSchema]:
    """Return what schemas demand beyond the types of their members, by name."""
    return {
        "CreateKeyRequest": {"oneOf": [_creation(kty) for kty in KEY_TYPES]},
        "PutKeySetRequest": {"oneOf": [_creation(kty) for kty in KEY_TYPES]},
        "DecryptRequest": {"not": _any_of(("jwe", "recipients"))},
        "RewrapRequest": {"not": _any_of(("jwe", "recipients"))},
        "UnwrapRequest": {"not": _any_of(("jwe", "recipients"))},
        "CompactDecryptRequest": {"not": _any_of((*JWE_PARTS, *JWE_OTHERS))},
        "CompactRewrapRequest": {"not": _any_of((*JWE_PARTS, *JWE_OTHERS))},
        "CompactUnwrapRequest": {"not": _any_of((*JWE_PARTS, *JWE_OTHERS))},
        "VerifyRequest": {"not": _any_of(("jws", "payload", "signatures"))},
        "FlattenedVerifyRequest": {"not": _any_of(("jws", "data", "signatures"))},
        "CompactVerifyRequest": {"not": _any_of((*JWS_PARTS, *JWS_OTHERS))},
        "DetachedVerifyRequest": {"not": _any_of(("protected", "signature", *JWS_OTHERS))},
        **{name: {"not": _any_of(("jwe", "encrypted_key", "header"))} for name in SHARED_PARTS},
        "GeneralVerifyRequest": {"not": _any_of((*_ONE_JWS, "data"))},
        "GeneralDetachedVerifyRequest": {"not": _any_of((*_ONE_JWS, "payload"))},
        "MacRequest": {"not": _any_of(("serialization",))},
        "CompactMacRequest": {"not": _any_of(("mac",))},
        "SignRequest": {"not": _any_of(("protected", "signers"))},
        "GeneralSignRequest": {"not": _any_of(("kid", "keyset", "alg", "protected"))},
        "EncryptRequest": {"not": _any_of(("jwk", "recipients"))},
        "JwkEncryptRequest": {"not": _any_of(("kid", "keyset", "recipients"))},
        "GeneralEncryptRequest": {"not": _any_of(("kid", "keyset", "jwk", "alg", "apu", "apv"))},
        "CertificateRequest": {"oneOf": [{"required": ["chain"]}, {"required": ["x5c"]}]},
        "RawSignRequest": {"oneOf": [{"required": ["data"]}, {"required": ["digest"]}]},
        "ProtectedSignRequest": {"not": _any_of(("header", "typ", "cty", "signers"))},
    }


def members() -> dict[str, JsonSchema]:
    """Return what single members are beyond their types: ``schema.member``."""
    operations_of_grants = {"items": {"type": "string", "enum": [str(one) for one in GRANTABLE]}}
    tag = {"type": "string", "minLength": 1, "maxLength": labels.LONGEST, "pattern": "^[^_]"}
    limit = {"minimum": 1, "maximum": catalogue.MOST_KEYS, "default": catalogue.DEFAULT_KEYS}
    sizes = rsa.SIZES.generated
    return {
        "CreateKeyRequest.kty": {"enum": list(KEY_TYPES)},
        "CreateKeyRequest.bits": {"enum": [*sizes, None], "default": sizes[0]},
        "BatchRequest.requests": {
            "maxItems": batch.MOST_REQUESTS,
            "items": {"oneOf": [_part(op) for op in operations.OPERATIONS]},
        },
        "PutKeySetRequest.kty": {"enum": list(KEY_TYPES)},
        "PutKeySetRequest.bits": {"enum": [*sizes, None], "default": sizes[0]},
        "PutKeySetRequest.tags": {"maxItems": labels.MOST_TAGS, "items": tag},
        "PutKeySetRequest.rotation": nullable(reference("Rotation")),
        "KeySetResponse.rotation": nullable(reference("Rotation")),
        "KeySetResponse.next": {"examples": ["0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11"]},
        "KeySetsResponse.after": {"examples": ["orders"]},
        "VersionResponse.retires": {"examples": ["2030-01-31T12:00:00Z"]},
        "KeySetsQuery.limit": {"type": "integer", **limit},
        "VersionResponse.state": {"enum": [str(state) for state in VersionState]},
        "TagsRequest.tags": {"maxItems": labels.MOST_TAGS, "items": tag},
        "ByokRequest.header": reference("ByokHeaderRequest"),
        "ByokHeaderRequest.kid": {"examples": _WRAPPING_KIDS},
        "WrappedRequest.kid": {"examples": _WRAPPING_KIDS},
        "WrappedRequest.alg": {"enum": list(hsm.WRAPPING_ALGS)},
        "WrappingKeyResponse.jwk": reference("Jwk"),
        "CreateKeyRequest.tags": {"maxItems": labels.MOST_TAGS, "items": tag},
        "GrantRequest.operations": {"minItems": 1, **operations_of_grants},
        "GrantResponse.operations": operations_of_grants,
        "RandomRequest.bytes": {"minimum": 1, "maximum": random.MOST_BYTES},
        "ListQuery.limit": {"type": "integer", **limit},
        "ListQuery.after": _OCTETS,
        "ListResponse.after": nullable(_OCTETS),
        "EncryptResponse.protected": _OCTETS,
        "EncryptResponse.aad": _OCTETS,
        **{
            f"{name}.{part}": _OCTETS
            for name in ("RewrapResponse", "GeneralRewrapResponse")
            for part in ("protected", "aad", "iv", "ciphertext", "tag")
        },
        "RewrapResponse.encrypted_key": _OCTETS,
        "GeneralEncryptResponse.protected": _OCTETS,
        "GeneralEncryptResponse.aad": _OCTETS,
        "GeneralEncryptResponse.recipients": {"items": reference("RecipientResponse")},
        "GeneralValidResponse.signatures": {
            "items": _object(kid=nullable(_TEXT), valid=nullable(_FLAG))
        },
        "SignResponse.protected": _OCTETS,
        "GeneralSignResponse.payload": _OCTETS,
        "GeneralSignResponse.signatures": {"items": reference("SignResponse")},
        # With null they are no longer the requests that these members make of them.
        "ProtectedSignRequest.protected": {"type": ["string", "null"]},
        "CompactMacRequest.serialization": nullable({"type": "string", "enum": [COMPACT]}),
        "DescriptionResponse.state": {"enum": list(catalogue.SHOWN_STATES)},
        "DescriptionResponse.origin": {"enum": [str(origin) for origin in Origin]},
        "DescriptionResponse.residency": {"enum": [str(place) for place in Residency]},
        "DescriptionResponse.storage": _STORAGE,
        "KeyResponse.storage": _STORAGE,
        "SeveralKeysResponse.keys": {"items": reference("KeyResponse")},
        "CreateKeyRequest.storage": {"enum": [*_STORAGES, None]},
        "CreateKeyRequest.count": {"minimum": 1, "maximum": MOST_COUNT},
        "DescriptionResponse.jwk": reference("Jwk"),
    }
