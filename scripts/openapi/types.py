"""What the fields of the schemas are in JSON Schema (2020-12)."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any, Final

from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import fields

import hsm
from app.duration import PATTERN
from app.schemas import certificates, labels
from app.schemas.batch import RequestsField
from app.schemas.fields import (
    KEY_TRANSPORT,
    PARTY_INFO_BYTES_MAX,
    SIGNATURE,
    AlgorithmName,
    Base64Url,
    Choice,
    Flag,
    KeyOperations,
    PartyInfo,
    Payload,
    Text,
    WholeNumber,
)
from app.schemas.messages.addressed import RecipientsField, SignaturesField
from app.schemas.messages.caller_header import HEADER_BYTES_MAX, AddedHeader, WholeHeader
from app.schemas.messages.received_header import ProtectedHeader
from app.schemas.messages.receivers import ReceiversField
from app.schemas.messages.rewrapping import TargetField
from app.schemas.messages.several import MOST
from app.schemas.messages.signers import SignersField
from app.schemas.public_jwk import RECIPIENT, SIGNER, Party, PublicJwkField
from app.schemas.wrapped import WrappedField

JsonSchema = dict[str, Any]

_OCTETS: Final = "(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?"
"""Canonical base64url: no padding, and the bits that stand for nothing are zero."""

BASE64URL: Final[Mapping[str, str]] = MappingProxyType(
    {"type": "string", "pattern": f"^{_OCTETS}$", "contentEncoding": "base64url"}
)


DURATION: Final[JsonSchema] = {
    "type": "string",
    "format": "duration",
    "pattern": f"^{PATTERN}$",
    "examples": ["P30D"],
}
ALIAS: Final[JsonSchema] = {"type": "string", "pattern": "^[A-Za-z0-9._~:-]{1,128}$"}


def compact(parts: int) -> JsonSchema:
    """Return a Compact Serialization of so many parts (RFC 7515 §7.1, RFC 7516 §7.1)."""
    dotted = r"\.".join([_OCTETS] * parts)
    return {"type": "string", "pattern": f"^{dotted}$"}


DETACHED: Final[Mapping[str, str]] = MappingProxyType(
    {"type": "string", "pattern": rf"^{_OCTETS}\.\.{_OCTETS}$"}
)
"""A compact JWS without its payload (RFC 7515 appendix F)."""


def reference(name: str) -> JsonSchema:
    """Return a reference to the schema ``name``."""
    return {"$ref": f"#/components/schemas/{name}"}


JWKS: Final[Mapping[Party, str]] = MappingProxyType(
    {SIGNER: "PublicJwk", RECIPIENT: "RecipientJwk"}
)
"""Public keys that callers bring along, by what for."""


def one_of(names: tuple[str, ...]) -> JsonSchema:
    """Return the schema that one of those ``names`` holds."""
    if len(names) == 1:
        return reference(names[0])
    return {"oneOf": [reference(name) for name in names]}


def nullable(schema: JsonSchema) -> JsonSchema:
    """Return ``schema``, or null."""
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    or_null = schema | {"type": [schema["type"], "null"]}
    return or_null | ({"enum": [*schema["enum"], None]} if "enum" in schema else {})


def _in_order(names: frozenset[str]) -> list[str]:
    return [name for name in (hsm.DIRECT, *hsm.ALGORITHMS) if name in names]


def _several(*required: str, **members: JsonSchema) -> JsonSchema:
    """Return the recipients or signatures of a message."""
    one = {"type": "object", "properties": members, "required": list(required)}
    return {"type": "array", "minItems": 1, "maxItems": MOST, "items": one}


def _header(field: ProtectedHeader) -> JsonSchema:
    """Return base64url of the part of a header that is protected, with what we use of it."""
    names = {
        name: {"type": "string", "enum": _in_order(algorithms.names)}
        for name, algorithms in field.algorithms.items()
    }
    header = {"type": "object", "properties": {**names, "kid": {"type": "string"}}}
    encoded = {"minLength": 1, "contentMediaType": "application/json", "contentSchema": header}
    return {**BASE64URL, **encoded}


_WHOLE_HEADER: Final[JsonSchema] = {
    "type": "object",
    "properties": {
        "alg": {"type": "string", "enum": _in_order(SIGNATURE.names)},
        "kid": {"type": "string"},
    },
    "required": ["alg"],
}


_TYPES: Final[Mapping[type[fields.Field[Any]], JsonSchema | Callable[[Any], JsonSchema]]] = {
    Text: {"type": "string"},
    Base64Url: dict(BASE64URL),
    PartyInfo: {**BASE64URL, "maxLength": -(-PARTY_INFO_BYTES_MAX * 4 // 3)},
    Choice: lambda field: {"type": "string", "enum": list(field.choices)},
    AlgorithmName: lambda field: {"type": "string", "enum": _in_order(field.algorithms.names)},
    Payload: {"type": "string"},
    ProtectedHeader: _header,
    RecipientsField: _several(header={"type": "object"}, encrypted_key=dict(BASE64URL)),
    SignaturesField: _several(
        "signature",
        protected=dict(BASE64URL),
        header={"type": "object"},
        signature=dict(BASE64URL),
    ),
    ReceiversField: _several(
        "alg",
        kid=nullable({"type": "string"}),
        keyset=nullable(ALIAS) | {"examples": ["orders"]},
        jwk=nullable(reference(JWKS[RECIPIENT])),
        alg={"type": "string", "enum": _in_order(KEY_TRANSPORT.names)},
        apu=nullable(dict(BASE64URL)),
        apv=nullable(dict(BASE64URL)),
    ),
    TargetField: reference("TargetRequest"),
    WrappedField: {"oneOf": [reference("WrappedRequest"), reference("ByokRequest")]},
    SignersField: _several(
        "alg",
        kid={"type": "string"},
        keyset=nullable(ALIAS) | {"examples": ["orders"]},
        alg={"type": "string", "enum": _in_order(SIGNATURE.names)},
    ),
    AddedHeader: {
        "type": "object",
        "examples": [{"typ": "dpop+jwt", "jwk": True, "kid": None}],
    },
    WholeHeader: {
        **BASE64URL,
        "minLength": 1,
        "maxLength": -(-HEADER_BYTES_MAX * 4 // 3),
        "contentMediaType": "application/json",
        "contentSchema": _WHOLE_HEADER,
    },
    Flag: {"type": "boolean"},
    WholeNumber: {"type": "integer"},
    KeyOperations: {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
    labels.Alias: ALIAS,
    labels.AliasOfNew: {"anyOf": [ALIAS, {"const": True}]},
    labels.Name: {"type": "string", "minLength": 1, "maxLength": labels.LONGEST},
    labels.Day: {"type": "string", "format": "date", "examples": ["2030-01-31"]},
    labels.Duration: DURATION,
    labels.Instant: {"type": "string", "format": "date-time"},
    labels.NamesField: {"type": "array", "items": {"type": "string"}},
    labels.TagsField: {"type": "array", "items": {"type": "string"}},
    RequestsField: {"type": "array"},
    certificates.Subject: {
        "type": "object",
        "properties": {name: {"type": "string"} for name in hsm.SUBJECT_NAMES},
        "additionalProperties": False,
    },
    certificates.DnsNames: {"type": "array", "items": {"type": "string"}},
    certificates.PemChain: {"type": "string"},
    certificates.X5c: {"type": "array", "items": {"type": "string"}},
    PublicJwkField: lambda field: reference(JWKS[field.party]),
}


def of_field(_converter: OpenAPIConverter, field: fields.Field[Any], **_kwargs: Any) -> JsonSchema:
    """Return what a field of ours takes and gives; nothing for those of marshmallow."""
    known = next((_TYPES[kind] for kind in type(field).__mro__ if kind in _TYPES), {})
    schema = known(field) if callable(known) else deepcopy(known)
    return nullable(schema) if schema and field.allow_none else schema
