"""The document for generators is flat, and permits whatever the strict one does."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from scripts.openapi.plain import plain
from scripts.openapi.texts import PLAIN as TEXTS
from tests.documents.test_openapi import DOCUMENT as STRICT
from tests.documents.test_openapi import EXAMPLES
from tests.documents.test_openapi import OPERATIONS as STRICT_OPERATIONS

Members = dict[str, Any]

PLAIN: Members = plain(STRICT)
OPERATIONS: dict[str, Members] = {
    STRICT["paths"][path][method]["operationId"]: operation
    for path, methods in PLAIN["paths"].items()
    for method, operation in methods.items()
}
UNIONS = {"oneOf", "anyOf", "allOf", "not"}
EXACT = {"const", "enum", "pattern", "dependentRequired", "contentSchema"}


def objects(value: Any) -> Iterator[Members]:
    """Yield every object at any depth that is no example."""
    if isinstance(value, dict):
        yield value
        for name, one in value.items():
            if name not in ("example", "examples"):
                yield from objects(one)
    elif isinstance(value, list):
        for one in value:
            yield from objects(one)


def resolved(reference: str) -> Members:
    found = PLAIN
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return found


def test_nothing_is_in_it_that_generators_stumble_at():
    for one in objects(PLAIN):
        assert not ({"links"} | UNIONS | EXACT) & one.keys()
        assert not isinstance(one.get("type"), list)
        assert "$ref" not in one or len(one) == 1
    assert PLAIN["openapi"] == "3.0.3"


def test_it_has_the_operations_of_the_strict_one_by_names_of_their_own():
    assert OPERATIONS.keys() == STRICT_OPERATIONS.keys() >= TEXTS["operations"].keys()
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)*", name) for name in names)
    assert not {f"{name}Raw" for name in names} & {*names}  # variants in TypeScript
    assert {"createKey", "listKeys", "addTags", "sign", "verify", "encrypt", "decrypt"} < {*names}


def test_arrays_of_requests_may_be_left_out_where_clients_send_all_members():
    """Clients in Java send an empty array for one that is not given, unless it may be null."""
    for name, schema in PLAIN["components"]["schemas"].items():
        if name.endswith("Request"):
            arrays = {
                member
                for member, one in schema["properties"].items()
                if one.get("type") == "array" and not one.get("nullable")
            }
            assert arrays <= set(schema.get("required", ())), name


def test_every_error_is_an_api_error():
    for operation in OPERATIONS.values():
        refusals = [one for status, one in operation["responses"].items() if status >= "400"]
        assert refusals
        for refusal in refusals:
            content = resolved(refusal["$ref"])["content"]
            told = {media: one["schema"] for media, one in content.items()}
            assert told == {"application/json": {"$ref": "#/components/schemas/ApiError"}}
    assert set(resolved("#/components/schemas/ApiError")["required"]) == {"error", "description"}


def test_all_that_is_referred_to_is_there_and_nothing_else():
    references = {one["$ref"] for one in objects(PLAIN) if "$ref" in one}
    parts = {kind: named for kind, named in PLAIN["components"].items() if kind in PARTS}
    assert references == {f"#/components/{kind}/{name}" for kind in parts for name in parts[kind]}


PARTS = ("schemas", "responses", "parameters", "headers")


def test_it_says_where_the_strict_one_is():
    assert "/openapi-strict.json" in PLAIN["info"]["description"]
    assert "/openapi-strict.json" in PLAIN["paths"]


def with_nulls(value: Any) -> Any:
    """Return ``value`` with null told as JSON Schema does it."""
    if isinstance(value, list):
        return [with_nulls(one) for one in value]
    if not isinstance(value, dict):
        return value
    told = {name: with_nulls(one) for name, one in value.items()}
    return told | {"type": [told["type"], "null"]} if value.get("nullable") is True else told


COMPONENTS = with_nulls(PLAIN["components"])


@pytest.mark.parametrize(("operation", "part", "value"), EXAMPLES)
def test_what_the_strict_one_permits_it_permits(operation, part, value):
    members = OPERATIONS[operation]
    holder = members["requestBody"] if part == "request" else members["responses"]["200"]
    for media in holder["content"].values():
        schema = media["schema"] | {"components": COMPONENTS}
        jsonschema_rs.Draft202012Validator(schema, validate_formats=True).validate(value)


ANSWERS = [
    (operation, value)
    for operation, part, value in EXAMPLES
    if part == "response" and isinstance(value, dict)
]


@pytest.mark.parametrize(("operation", "value"), ANSWERS)
def test_clients_know_every_member_of_every_answer(operation, value):
    for media in OPERATIONS[operation]["responses"]["200"]["content"].values():
        assert value.keys() <= resolved(media["schema"]["$ref"])["properties"].keys()
