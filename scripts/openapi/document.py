"""The OpenAPI document: rows and schemas put together by apispec."""

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, cast

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema

from app import bodies, errors
from app.schemas import batch, catalogue, keys, messages
from scripts.openapi import shapes
from scripts.openapi.endpoints import JSON, Answer, Operation, operations
from scripts.openapi.examples import EXCHANGES, Exchange, slug
from scripts.openapi.failures import ROUTING, Failures
from scripts.openapi.members import describe
from scripts.openapi.types import JsonSchema, of_field, one_of, reference
from scripts.throwaway import ROOT

Members = dict[str, Any]

SCHEMAS: Final[tuple[type[Schema], ...]] = (
    keys.CreateKeyRequest,
    keys.KeyResponse,
    messages.UnwrapRequest,
    catalogue.DescriptionResponse,
    catalogue.ListResponse,
    catalogue.ChangeRequest,
    catalogue.TagsRequest,
    catalogue.TagsResponse,
    catalogue.GrantRequest,
    catalogue.GrantResponse,
    messages.EncryptRequest,
    messages.EncryptResponse,
    messages.DecryptRequest,
    messages.DecryptResponse,
    messages.SignRequest,
    messages.SignResponse,
    messages.VerifyRequest,
    messages.FlattenedVerifyRequest,
    messages.MacRequest,
    messages.MacResponse,
    messages.ValidResponse,
    batch.BatchRequest,
)
_SECURITY: Final = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API token, made by `jose-hsm token create` (`JOSE_HSM_AUTH=token`).",
    },
    "jwt": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A JWT of the configured issuer (`JOSE_HSM_AUTH=jwt`).",
    },
    "mtls": {
        "type": "mutualTLS",
        "description": "A TLS client certificate (`JOSE_HSM_AUTH=mtls`).",
    },
}
_TAGS: Final = {
    "keys": "Create, import, unwrap, list, read, change, tag and destroy keys.",
    "grants": "Who may do what with a key, apart from its owner.",
    "encryption": "JWE (RFC 7516).",
    "signing": "JWS (RFC 7515), and the MAC.",
    "batch": "Many operations in one request.",
    "capabilities": "What is offered.",
    "jwks": "Published public keys, for everybody.",
    "health": "For programs that watch the service.",
    "openapi": "This document.",
}
_ABOUT: Final = f"""\
JOSE on keys that cannot leave an HSM.

Everything binary is base64url without padding. Unknown members of a request are ignored, and
`null` for an optional member means that it is absent. A body is one JSON object, strictly
(RFC 8259): UTF-8, no member twice, and at most {bodies.MAX_BODY_BYTES} bytes.

Which of the ways to authenticate count is the operator's setting; without any the service serves
its own machine only, and asks nobody. Every error is JSON of two members, `error` for programs and
`description` for people, whatever the path. The table of all codes is in `docs/errors.md`.
"""
_HEADERS: Final = {
    "X-Request-Id": {"type": "string", "pattern": "^[A-Za-z0-9._~+/=-]{1,128}$"},
    "Retry-After": {"type": "integer", "minimum": 1},
    "WWW-Authenticate": {"type": "string"},
    "Allow": {"type": "string"},
    "ETag": {"type": "string"},
    "Cache-Control": {"type": "string"},
}
_HEADERS_OF: Final[Mapping[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
_PARAMETERS: Final = {
    "Idempotency-Key": {"type": "string", "pattern": "^[ -~]{1,255}$"},
    "If-None-Match": {"type": "string"},
    "X-Request-Id": {"type": "string"},
}
_PATH_PARAMETERS: Final = {
    "kid": {"type": "string"},
    "grantee": {"type": "string", "pattern": r"^(\*|anonymous|(token|jwt|mtls):.+)$"},
}


def version() -> str:
    """Return the version of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["version"])


def document(exchanges: Sequence[Exchange] = EXCHANGES) -> Members:
    """Return the document, with ``exchanges`` as its examples."""
    plugin = MarshmallowPlugin(schema_name_resolver=lambda schema: schema.__name__)
    spec = APISpec(
        title="jose-hsm",
        version=version(),
        openapi_version="3.1.1",
        plugins=[plugin],
        info={
            "summary": "The REST Native Crypto API",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        servers=[{"url": "/"}],
        security=[{name: []} for name in _SECURITY],
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
    )
    converter = cast(OpenAPIConverter, plugin.converter)  # there is one from here on
    converter.add_attribute_function(of_field)  # type: ignore[no-untyped-call]  # theirs
    for schema in SCHEMAS:
        if schema.__name__ not in spec.components.schemas:
            spec.components.schema(schema.__name__, schema=schema)
    for name, members in shapes.own().items():
        spec.components.schema(name, members)
    for name, scheme in _SECURITY.items():
        spec.components.security_scheme(name, scheme)
    for name, header in _HEADERS.items():
        spec.components.header(name, {"description": describe("", name), "schema": header})
    for name, parameter in _PARAMETERS.items():
        spec.components.parameter(name, "header", _parameter(name, parameter))
    for name, parameter in _PATH_PARAMETERS.items():
        spec.components.parameter(name, "path", _parameter(name, parameter) | {"required": True})
    refusals = _responses([ROUTING, *(one.failures for one in operations().values())])
    for name, response in refusals.items():
        spec.components.response(name, response)
    for operation in operations().values():
        spec.path(
            operation.path,
            operations={operation.method.lower(): _described(operation, converter, exchanges)},
        )
    return _finished(spec.to_dict(), exchanges)


def _parameter(name: str, schema: JsonSchema) -> Members:
    return {"description": describe("", name), "schema": schema}


def _described(
    operation: Operation, converter: OpenAPIConverter, exchanges: Sequence[Exchange]
) -> Members:
    row = operation.row
    members: Members = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if row.more:
        members["description"] = row.more
    names = (*operation.parameters, *row.headers, "X-Request-Id")
    members["parameters"] = list(names)  # references, for apispec
    if row.query:
        members["parameters"] += _query(row.query, converter)
    if row.body:
        content = {"schema": one_of(row.body)} | _examples(exchanges, operation.name, "request")
        members["requestBody"] = {"required": True, "content": {JSON: content}}
    members["responses"] = {
        **{str(answer.status): _answer(operation, answer, exchanges) for answer in row.answers},
        **{
            str(status): {"$ref": f"#/components/responses/{_name(causes)}"}
            for status, causes in _by_status(operation.failures).items()
        },
    }
    if operation.is_open:
        members["security"] = []
    return members


def _query(schema: type[Schema], converter: OpenAPIConverter) -> list[Members]:
    properties = converter.schema2jsonschema(schema())["properties"]  # type: ignore[no-untyped-call]  # theirs
    more = shapes.members()
    return [
        {
            "name": name,
            "in": "query",
            "description": describe(schema.__name__, name),
            "schema": members | more.get(f"{schema.__name__}.{name}", {}),
        }
        for name, members in properties.items()
    ]


def _answer(operation: Operation, answer: Answer, exchanges: Sequence[Exchange]) -> Members:
    members: Members = {
        "description": answer.says,
        "headers": _header_references(("X-Request-Id", *answer.headers)),
    }
    if answer.status == HTTPStatus.OK:
        told = _examples(exchanges, operation.name, "response")
        members["content"] = {
            media_type: {"schema": answer.schema}
            | (told if media_type == answer.media_types[0] else {})
            for media_type in answer.media_types
        }
    if answer.links:
        members["links"] = {
            link.operation: {"operationId": link.operation}
            | ({"parameters": dict(link.parameters)} if link.parameters else {})
            | ({"requestBody": dict(link.body)} if link.body else {})
            for link in answer.links
        }
    return members


def _examples(exchanges: Sequence[Exchange], operation: str, part: str) -> Members:
    """Return the bodies that ``operation`` has there, if it has any."""
    told = {
        slug(one["title"]): {"summary": one["title"], "value": one[part]}
        for one in exchanges
        if one["operation"] == operation and one[part] is not None
    }
    return {"examples": told} if told else {}


def _header_references(names: Iterable[str]) -> Members:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


# --- Errors ---


def _by_status(causes: Failures) -> dict[int, list[Exception]]:
    """Return the causes of each status, in order."""
    found: dict[int, list[Exception]] = {}
    for cause in causes:
        found.setdefault(errors.answer(cause).status, []).append(cause)
    return dict(sorted(found.items()))


def _name(causes: Iterable[Exception]) -> str:
    """Return the name of the response to ``causes``, which have one status: that, and the codes."""
    told = [errors.answer(cause) for cause in causes]
    return "-".join([str(told[0].status), *sorted({answer.body["error"] for answer in told})])


def _responses(of: Iterable[Failures]) -> dict[str, Members]:
    """Return the responses to what can go wrong, by name."""
    found: dict[str, dict[str, Exception]] = {}
    for failures in of:
        for causes in _by_status(failures).values():
            told = found.setdefault(_name(causes), {})
            told.update({str(cause): cause for cause in causes})
    return {name: _refusal(list(found[name].values())) for name in sorted(found)}


def _refusal(causes: list[Exception]) -> Members:
    told = [errors.answer(cause) for cause in causes]
    status = told[0].status
    codes = sorted({answer.body["error"] for answer in told})
    return {
        "description": " or ".join(f"`{code}`" for code in codes),
        "headers": _header_references(("X-Request-Id", *_HEADERS_OF.get(status, ()))),
        "content": {
            JSON: {
                "schema": {**reference("Error"), "properties": {"error": {"enum": codes}}},
                "examples": {
                    slug(answer.body["description"]): {"value": answer.body} for answer in told
                },
            }
        },
    }


# --- The whole ---


def _finished(document: Members, exchanges: Sequence[Exchange]) -> Members:
    """Return ``document`` in the usual order, and with all that apispec cannot know."""
    order = ("openapi", "info", "servers", "security", "tags", "paths", "components")
    document = {name: document[name] for name in order}
    schemas = document["components"]["schemas"]
    for schema, more in shapes.demands().items():
        schemas[schema] |= more
    for path, more in shapes.members().items():
        schema, _, member = path.partition(".")
        if schema in schemas:
            schemas[schema]["properties"][member] |= more
    document = json.loads(json.dumps(document))  # no part of it stands for two
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        _explain(name, schema)
    for told in exchanges:
        _show_all(document, told)
    return document


def _show_all(document: Members, told: Exchange) -> None:
    """Give parameters and members the values that they have in ``told``."""
    operation = operations()[told["operation"]]
    for name, value in told["path"].items():
        document["components"]["parameters"][name]["example"] = value
    for parameter in document["paths"][operation.path][operation.method.lower()]["parameters"]:
        if parameter.get("name") in told["query"]:
            parameter["example"] = told["query"][parameter["name"]]
    schemas = document["components"]["schemas"]
    if told["request"] is not None:
        _show(schemas, one_of(operation.row.body), told["request"])
    if operation.row.answers[0].schemas:
        _show(schemas, operation.row.answers[0].schema, told["response"])


def _explain(name: str, schema: Members) -> None:
    """Describe every member at any depth, and leave out defaults that say nothing."""
    for member, one in schema.get("properties", {}).items():
        one["description"] = describe(name, member)
        if one.get("default", ...) is None:
            del one["default"]
        _explain(name, one)
    items = schema.get("items", {})
    for inner in (items, *items.get("oneOf", ()), schema.get("additionalProperties")):
        if inner and isinstance(inner, dict):
            _explain(name, inner)


def _show(schemas: Members, schema: Members, value: Any) -> None:
    """Give each member without an example the one that it has in ``value``."""
    for inner in _held(schemas, schema, value):
        _show(schemas, inner, value)
    if isinstance(value, list):
        for one in value:
            _show(schemas, schema.get("items", {}), one)
    if isinstance(value, dict):
        members = schema.get("properties", {})
        others = schema.get("additionalProperties") or {}
        for name, one in value.items():
            member = members.get(name, others)
            if name in members and not isinstance(one, dict | None) and "$ref" not in member:
                member.setdefault("examples", [one])
            _show(schemas, member, one)


def _held(schemas: Members, schema: Members, value: Any) -> Iterator[Members]:
    """Return the schemas that ``schema`` refers to and ``value`` holds."""
    if "$ref" in schema:
        yield schemas[schema["$ref"].rpartition("/")[2]]
    for branch in (*schema.get("oneOf", ()), *schema.get("anyOf", ())):
        (held,) = [branch] if "$ref" not in branch else _held(schemas, branch, value)
        if "properties" in held and isinstance(value, dict) and _fits(held, value):
            yield held


def _fits(schema: Members, value: Members) -> bool:
    refused = schema.get("not", {})
    others = [name for one in refused.get("anyOf", [refused]) for name in one.get("required", ())]
    constants = {name: one["const"] for name, one in schema["properties"].items() if "const" in one}
    return (
        set(schema.get("required", ())) <= value.keys()
        and not value.keys() & set(others)
        and all(value[name] == constants[name] for name in constants)
    )
