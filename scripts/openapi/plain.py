"""The document for generators of clients: what the strict one says, as flat as they need it.

It is OpenAPI 3.0, which all of them read. Whatever the strict one permits it permits, too.
"""

from collections.abc import Iterator
from copy import deepcopy
from itertools import chain
from typing import Any

from scripts.openapi.flat import Flattening
from scripts.openapi.texts import PLAIN
from scripts.openapi.types import reference

Members = dict[str, Any]


def plain(strict: Members) -> Members:
    """Return the document for generators that says what ``strict`` does."""
    strict = deepcopy(strict)
    operations = _operations(strict)
    for operation in operations:
        _name(operation)
    bodies = frozenset(_body(one, kind) for one in operations for kind in ("Request", "Response"))
    schemas = strict["components"].pop("schemas")
    flattening = Flattening(schemas=schemas, names=PLAIN["schemas"], inlined=bodies)
    document: Members = _flat(strict, flattening, has_nulls=True) | _head(strict["info"])
    of_bodies = chain.from_iterable(map(_bodies, _operations(document)))
    document["components"] |= {
        "schemas": _schemas(flattening) | dict(of_bodies),
        "securitySchemes": PLAIN["security"],
    }
    return _used(document)


def _operations(document: Members) -> list[Members]:
    return [one for methods in document["paths"].values() for one in methods.values()]


def _schemas(flattening: Flattening) -> Members:
    """Return the flat schemas that keep a name of their own."""
    return {
        flattening.names.get(name, name): flattening.flat(
            schema, has_nulls=not name.endswith("Request")
        )
        for name, schema in flattening.schemas.items()
        if name not in flattening.inlined
    }


def _head(info: Members) -> Members:
    """Return what comes before the paths, and differs."""
    kept = {name: info[name] for name in ("title", "version", "license")}
    description = {"description": info["description"] + PLAIN["about"]}
    return {
        "openapi": "3.0.3",
        "info": kept | description | PLAIN["info"],
        "security": [{name: []} for name in PLAIN["security"]],
    }


def _name(operation: Members) -> None:
    strict = operation["operationId"]
    operation["operationId"] = PLAIN["operations"].get(strict) or _name_by_rule(strict)
    operation.setdefault("description", f"{operation['summary']}.")


def _name_by_rule(operation_id: str) -> str:
    """Return ``createKey`` for ``keys_create``."""
    resource, _, verb = operation_id.partition("_")
    return verb + resource.removesuffix("s").capitalize()


def _body(operation: Members, kind: str) -> str:
    """Return a name that generators give, or we do, to the body of a request or an answer."""
    name = operation["operationId"]
    return f"{name[0].upper()}{name[1:]}{kind}"


def _bodies(operation: Members) -> Iterator[tuple[str, Members]]:
    """Give the bodies that ``operation`` tells itself, and have it refer to them by their names."""
    holders = {
        "Request": operation.get("requestBody", {}),
        "Result": operation["responses"].get("200", {}),  # SignResponse is Go's for all of it
    }
    for kind, holder in holders.items():
        for media in holder.get("content", {}).values():
            if "properties" in media["schema"]:
                _show_what_counts(media)
                yield _body(operation, kind), media["schema"]
                media["schema"] = reference(_body(operation, kind))


def _show_what_counts(media: Members) -> None:
    """Leave out of the examples what is ignored: members that the schema has not."""
    known = media["schema"]["properties"]
    for example in media.get("examples", {}).values():
        example["value"] = {name: one for name, one in example["value"].items() if name in known}


def _flat(value: Any, flattening: Flattening, *, has_nulls: bool) -> Any:
    """Return ``value``, a part of the document, with flat schemas and without links."""
    match value:
        case dict():
            return {
                name: _flat_member(name, one, flattening, has_nulls=has_nulls)
                for name, one in value.items()
                if name != "links"
            }
        case list():
            return [_flat(one, flattening, has_nulls=has_nulls) for one in value]
        case _:
            return value


def _flat_member(name: str, value: Any, flattening: Flattening, *, has_nulls: bool) -> Any:
    match name:
        case "schema":
            return flattening.flat(value, has_nulls=has_nulls)
        case "examples":
            return value
        case _:
            return _flat(value, flattening, has_nulls=has_nulls and name != "requestBody")


def _used(document: Members) -> Members:
    """Return ``document`` with the components that it refers to."""
    components = document["components"]
    used: set[tuple[str, str]] = set()
    found = set(_references(document["paths"]))
    while found - used:
        used |= found
        found = {one for kind, name in used for one in _references(components[kind][name])}
    kept = {
        kind: {name: one for name, one in named.items() if (kind, name) in used}
        for kind, named in components.items()
    }
    return document | {"components": kept | {"securitySchemes": components["securitySchemes"]}}


def _references(value: Any) -> Iterator[tuple[str, str]]:
    """Give the kind and the name of each component that ``value`` refers to."""
    match value:
        case {"$ref": str(path)}:
            kind, _, name = path.removeprefix("#/components/").partition("/")
            yield kind, name
        case dict():
            yield from chain.from_iterable(map(_references, value.values()))
        case list():
            yield from chain.from_iterable(map(_references, value))
