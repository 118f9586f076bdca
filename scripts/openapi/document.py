"""The OpenAPI document: rows and schemas put together by apispec."""

import tomllib
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final, cast

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema

from app.config import MAX_BODY_BYTES
from app.http import router
from app.http.endpoint import JSON
from app.schemas import batch, catalogue, keys, messages
from scripts.openapi import shapes
from scripts.openapi.examples import EXCHANGES, Exchange, slug
from scripts.openapi.failures import ROUTING
from scripts.openapi.finishing import finished
from scripts.openapi.members import describe
from scripts.openapi.operations import OPERATIONS, Operation
from scripts.openapi.refusals import by_status, header_references, name_of, responses
from scripts.openapi.types import JsonSchema, of_field, one_of
from scripts.throwaway import ROOT

Members = dict[str, Any]

SCHEMAS: Final[tuple[type[Schema], ...]] = tuple(
    one
    for module in (keys, catalogue, messages, batch)
    for one in vars(module).values()
    if isinstance(one, type) and issubclass(one, Schema) and one.__module__ == module.__name__
    if not one.__name__.endswith("Query")  # those are parameters
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
_ABOUT: Final = f"""\
JOSE on keys that cannot leave an HSM.

Everything binary is base64url without padding. Unknown members of a request are ignored, and
`null` for an optional member means that it is absent. A body is one JSON object, strictly
(RFC 8259): UTF-8, no member twice, and at most {MAX_BODY_BYTES} bytes.

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
        tags=[{"name": one.name, "description": one.about} for one in router.API],
    )
    converter = cast(OpenAPIConverter, plugin.converter)  # there is one from here on
    converter.add_attribute_function(of_field)  # type: ignore[no-untyped-call]  # theirs
    for schema in SCHEMAS:
        if schema.__name__ not in spec.components.schemas:
            spec.components.schema(schema.__name__, schema=schema)
    _add_components(spec)
    for operation in OPERATIONS.values():
        spec.path(
            operation.path,
            operations={operation.method: _described(operation, converter, exchanges)},
        )
    return finished(spec.to_dict(), exchanges)


def _add_components(spec: APISpec) -> None:
    """Give ``spec`` all that operations refer to, apart from the schemas of marshmallow."""
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
    found = responses([ROUTING, *(one.endpoint.all_failures for one in OPERATIONS.values())])
    for name, response in found.items():
        spec.components.response(name, response)


def _parameter(name: str, schema: JsonSchema) -> Members:
    return {"description": describe("", name), "schema": schema}


def _described(
    operation: Operation, converter: OpenAPIConverter, exchanges: Sequence[Exchange]
) -> Members:
    endpoint = operation.endpoint
    members: Members = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": endpoint.summary,
    }
    if endpoint.more:
        members["description"] = endpoint.more
    names = (*operation.parameters, *operation.headers, "X-Request-Id")
    members["parameters"] = list(names)  # references, for apispec
    if endpoint.query:
        members["parameters"] += _query(type(endpoint.query), converter)
    if operation.body:
        content = {"schema": one_of(operation.body)} | _examples(
            exchanges, operation.name, "request"
        )
        members["requestBody"] = {"required": True, "content": {JSON: content}}
    members["responses"] = {
        **_answers(operation, exchanges),
        **{
            str(status): {"$ref": f"#/components/responses/{name_of(causes)}"}
            for status, causes in by_status(endpoint.all_failures).items()
        },
    }
    if endpoint.is_public:
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


def _answers(operation: Operation, exchanges: Sequence[Exchange]) -> Members:
    endpoint = operation.endpoint
    cached = ("ETag", "Cache-Control") if endpoint.is_conditional else ()
    headers = header_references(("X-Request-Id", *cached))
    answers: Members = {
        str(int(endpoint.status)): {
            "description": endpoint.says,
            "headers": headers,
            **_content(operation, exchanges),
            **_links(operation),
        }
    }
    if endpoint.is_conditional:
        unchanged = "It is still the one of `If-None-Match`"
        answers["304"] = {"description": unchanged, "headers": headers}
    return answers


def _content(operation: Operation, exchanges: Sequence[Exchange]) -> Members:
    endpoint = operation.endpoint
    if endpoint.status != HTTPStatus.OK:
        return {}
    examples = _examples(exchanges, operation.name, "response")
    content = {media_type: {"schema": operation.answer} for media_type in endpoint.media_types}
    content[endpoint.media_types[0]] |= examples
    return {"content": content}


def _links(operation: Operation) -> Members:
    links = {
        link.operation: {"operationId": link.operation}
        | ({"parameters": dict(link.parameters)} if link.parameters else {})
        | ({"requestBody": dict(link.body)} if link.body else {})
        for link in operation.links
    }
    return {"links": links} if links else {}


def _examples(exchanges: Sequence[Exchange], operation: str, part: str) -> Members:
    """Return the bodies that ``operation`` has there, if it has any."""
    told = {
        slug(one["title"]): {"summary": one["title"], "value": one[part]}
        for one in exchanges
        if one["operation"] == operation and one[part] is not None
    }
    return {"examples": told} if told else {}
