"""What the fields of the schemas are in JSON Schema (2020-12)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import fields

import hsm
from app.schemas import catalogue
from app.schemas.batch import RequestsField
from app.schemas.fields import (
    PARTY_INFO_BYTES_MAX,
    AlgorithmName,
    Base64Url,
    Choice,
    PartyInfo,
    ProtectedHeader,
    Text,
    WholeNumber,
)
from app.schemas.public_jwk import PublicJwkField

JsonSchema = dict[str, Any]

_OCTETS: Final = "(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?"
"""Canonical base64url: no padding, and the bits that stand for nothing are zero."""

BASE64URL: Final[Mapping[str, str]] = MappingProxyType(
    {"type": "string", "pattern": f"^{_OCTETS}$", "contentEncoding": "base64url"}
)


def compact(parts: int) -> JsonSchema:
    """Return a Compact Serialization of so many parts (RFC 7515 §7.1, RFC 7516 §7.1)."""
    dotted = r"\.".join([_OCTETS] * parts)
    return {"type": "string", "pattern": f"^{dotted}$"}


def reference(name: str) -> JsonSchema:
    """Return a reference to the schema ``name``."""
    return {"$ref": f"#/components/schemas/{name}"}


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


def _text(_: Any) -> JsonSchema:
    return {"type": "string"}


def _octets(_: Any) -> JsonSchema:
    return dict(BASE64URL)


def _party_info(_: Any) -> JsonSchema:
    return {**BASE64URL, "maxLength": -(-PARTY_INFO_BYTES_MAX * 4 // 3)}


def _choice(field: Choice) -> JsonSchema:
    return {"type": "string", "enum": list(field.choices)}


def _algorithm(field: AlgorithmName) -> JsonSchema:
    return {"type": "string", "enum": _in_order(field.algorithms.names)}


def _in_order(names: frozenset[str]) -> list[str]:
    return [name for name in (hsm.DIRECT, *hsm.ALGORITHMS) if name in names]


def _header(field: ProtectedHeader) -> JsonSchema:
    """Return base64url of a header that names what we use of it."""
    names = {
        name: {"type": "string", "enum": _in_order(algorithms.names)}
        for name, algorithms in field.algorithms.items()
    }
    header = {
        "type": "object",
        "properties": {**names, "kid": {"type": "string"}},
        "required": [*names, *(() if field.beside else ("kid",))],
    }
    return {
        **BASE64URL,
        "minLength": 1,
        "contentMediaType": "application/json",
        "contentSchema": header,
    }


def _whole_number(_: Any) -> JsonSchema:
    return {"type": "integer"}


def _name(_: Any) -> JsonSchema:
    return {"type": "string", "minLength": 1, "maxLength": catalogue.LONGEST}


def _state(_: Any) -> JsonSchema:
    return {"type": "string", "enum": list(catalogue.STATES)}


def _instant(_: Any) -> JsonSchema:
    return {"type": "string", "format": "date-time"}


def _names(_: Any) -> JsonSchema:
    return {"type": "array", "items": {"type": "string"}}


def _requests(_: Any) -> JsonSchema:
    return {"type": "array"}


def _public_jwk(_: Any) -> JsonSchema:
    return reference("PublicJwk")


_TYPES: Final[Mapping[type[fields.Field[Any]], Callable[[Any], JsonSchema]]] = MappingProxyType(
    {
        Text: _text,
        Base64Url: _octets,
        PartyInfo: _party_info,
        Choice: _choice,
        AlgorithmName: _algorithm,
        ProtectedHeader: _header,
        WholeNumber: _whole_number,
        catalogue.Name: _name,
        catalogue.State: _state,
        catalogue.Instant: _instant,
        catalogue.NamesField: _names,
        RequestsField: _requests,
        PublicJwkField: _public_jwk,
    }
)


def of_field(_converter: OpenAPIConverter, field: fields.Field[Any], **_kwargs: Any) -> JsonSchema:
    """Return what a field of ours takes and gives; nothing for those of marshmallow."""
    convert = next((_TYPES[kind] for kind in type(field).__mro__ if kind in _TYPES), None)
    if convert is None:
        return {}
    schema = convert(field)
    return nullable(schema) if field.allow_none else schema
