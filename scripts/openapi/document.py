"""The OpenAPI document: declarations and schemas put together by apispec."""

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
from app.jose.strict_json import MOST_LEVELS
from app.schemas import batch, catalogue, certificates, keys, keysets, random, wrapped
from app.schemas.messages import encryption, raw_signing, rewrapping, signing
from scripts.openapi import shapes
from scripts.openapi.examples import EXCHANGES, Exchange, slug
from scripts.openapi.finishing import finished
from scripts.openapi.operations import OPERATIONS, Operation
from scripts.openapi.responses import header_references, references, responses
from scripts.openapi.texts import SKELETON, meaning
from scripts.openapi.types import JsonSchema, of_field, one_of
from scripts.throwaway import ROOT

Members = dict[str, Any]

SCHEMAS: Final[tuple[type[Schema], ...]] = tuple(
    one
    for module in (
        *(keys, wrapped, catalogue, keysets, certificates),
        *(encryption, rewrapping, signing, raw_signing),
        *(random, batch),
    )
    for one in vars(module).values()
    if isinstance(one, type) and issubclass(one, Schema) and one.__module__ == module.__name__
    if not one.__name__.endswith("Query")  # those are parameters
)


def version() -> str:
    """Return the version of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["version"])


def document(exchanges: Sequence[Exchange] = EXCHANGES) -> Members:
    """Return the document, with ``exchanges`` as its examples."""
    plugin = MarshmallowPlugin(schema_name_resolver=lambda schema: schema.__name__)
    info = dict(SKELETON["info"])
    for name, limit in (("{body_bytes}", MAX_BODY_BYTES), ("{levels}", MOST_LEVELS)):
        info["description"] = info["description"].replace(name, str(limit))
    spec = APISpec(
        title=info.pop("title"),
        version=version(),
        openapi_version="3.1.1",
        plugins=[plugin],
        info=info,
        servers=[{"url": "/"}],
        security=[{name: []} for name in SKELETON["security"]],
        tags=[{"name": one.name, "description": one.about} for one in router.API],
    )
    converter = cast(OpenAPIConverter, plugin.converter)  # there is one from here on
    converter.add_attribute_function(of_field)  # type: ignore[no-untyped-call]  # theirs
    for schema in SCHEMAS:
        if schema.__name__ not in spec.components.schemas:
            spec.components.schema(schema.__name__, schema=schema)
    _add_components(spec)
    for operation in OPERATIONS.values():
        described = _described(operation, converter, exchanges)
        spec.path(operation.path, operations={operation.method: described})
    return finished(spec.to_dict(), exchanges)


def _add_components(spec: APISpec) -> None:
    """Give ``spec`` all that operations refer to, apart from the schemas of marshmallow."""
    for name, members in shapes.own().items():
        spec.components.schema(name, members)
    for name, scheme in SKELETON["security"].items():
        spec.components.security_scheme(name, dict(scheme))
    for name, schema in SKELETON["headers"].items():
        spec.components.header(name, _meant(name, schema))
    for name, schema in SKELETON["header_parameters"].items():
        spec.components.parameter(name, "header", _meant(name, schema))
    for name, schema in SKELETON["path_parameters"].items():
        spec.components.parameter(name, "path", _meant(name, schema) | {"required": True})
    for name, response in responses(
        one.endpoint.all_failures for one in OPERATIONS.values()
    ).items():
        spec.components.response(name, response)


def _meant(name: str, schema: JsonSchema) -> Members:
    return {"description": meaning("", name), "schema": dict(schema)}


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
        examples = _examples(exchanges, operation.name, "request")
        content = {JSON: {"schema": one_of(operation.body)} | examples}
        members["requestBody"] = {"required": True, "content": content}
    members["responses"] = {
        **_answers(operation, exchanges),
        **references(endpoint.all_failures),
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
            "description": meaning(schema.__name__, name),
            "schema": members | more.get(f"{schema.__name__}.{name}", {}),
        }
        for name, members in properties.items()
    ]


def _answers(operation: Operation, exchanges: Sequence[Exchange]) -> Members:
    endpoint = operation.endpoint
    cached = ("ETag", "Cache-Control") if endpoint.is_conditional else ()
    answer: Members = {
        "description": endpoint.says,
        "headers": header_references(("X-Request-Id", *cached)),
    }
    unchanged = answer | {"description": "It is still the one of `If-None-Match`"}
    if endpoint.status == HTTPStatus.OK:
        content: Members = {name: {"schema": operation.answer} for name in endpoint.media_types}
        content[endpoint.media_types[0]] |= _examples(exchanges, operation.name, "response")
        answer["content"] = content
    if operation.links:
        answer["links"] = operation.links
    answers = {str(int(endpoint.status)): answer}
    return answers | ({"304": unchanged} if endpoint.is_conditional else {})


def _examples(exchanges: Sequence[Exchange], operation: str, part: str) -> Members:
    """Return the bodies that ``operation`` has there, if it has any."""
    examples = {
        slug(one["title"]): {"summary": one["title"], "value": one[part]}
        for one in exchanges
        if one["operation"] == operation and one[part] is not None
    }
    return {"examples": examples} if examples else {}
