"""What apispec cannot know: demands on several members, what each means, and a value of it."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from scripts.openapi import shapes
from scripts.openapi.examples import Exchange
from scripts.openapi.operations import OPERATIONS
from scripts.openapi.texts import meaning
from scripts.openapi.types import ALIAS, BASE64URL, nullable, one_of

Members = dict[str, Any]


def finished(document: Members, exchanges: Sequence[Exchange]) -> Members:
    """Return ``document`` in the usual order, and with all that apispec cannot know."""
    order = ("openapi", "info", "servers", "security", "tags", "paths", "components")
    document = {name: document[name] for name in order}
    schemas = document["components"]["schemas"]
    for schema, more in shapes.demands().items():
        schemas[schema] |= more
    for name, parts in shapes.PARTS.items():
        _add_parts(schemas[name], parts)
    for name in shapes.NAMING:
        _add_keyset(schemas[name])
    for name in shapes.SHARED_PARTS:
        shared = {"protected": dict(BASE64URL), "unprotected": nullable({"type": "object"})}
        schemas[name]["properties"] |= shared
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


def _add_parts(schema: Members, parts: tuple[str, ...]) -> None:
    """Have the header of a message in ``parts`` beside the protected one, which may be absent."""
    schema["properties"] |= {part: nullable({"type": "object"}) for part in parts}
    schema["required"].remove("protected")
    schema["anyOf"] = [{"required": [part]} for part in ("protected", *parts)]


def _add_keyset(schema: Members) -> None:
    """Have the key be named by its kid, or as that of a key set."""
    schema["properties"]["keyset"] = nullable(ALIAS) | {"examples": ["orders"]}
    schema["required"].remove("kid")
    schema["anyOf"] = [{"required": ["kid"]}, {"required": ["keyset"]}]


def _show_all(document: Members, told: Exchange) -> None:
    """Give parameters and members the values that they have in ``told``."""
    operation = OPERATIONS[told["operation"]]
    for name, value in told["path"].items():
        document["components"]["parameters"][name]["example"] = value
    for parameter in document["paths"][operation.path][operation.method]["parameters"]:
        if parameter.get("name") in told["query"]:
            parameter["example"] = told["query"][parameter["name"]]
    schemas = document["components"]["schemas"]
    if told["request"] is not None:
        _show(schemas, one_of(operation.body), told["request"])
    if operation.answers:
        _show(schemas, operation.answer, told["response"])


def _explain(name: str, schema: Members) -> None:
    """Describe every member at any depth, and leave out defaults that say nothing."""
    for member, one in schema.get("properties", {}).items():
        one["description"] = meaning(name, member)
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
