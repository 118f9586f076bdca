"""Our quick validation and marshmallow's own agree on every body: same result, or both refuse."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema

import app.factory  # noqa: F401  # all schemas there are
from app.errors import AppError
from app.schemas.schema import RequestSchema
from app.schemas.wrapped import ENC
from hsm import HsmError
from scripts.throwaway import ROOT


def schemas(base: type[RequestSchema] = RequestSchema) -> Iterator[type[RequestSchema]]:
    for schema in base.__subclasses__():
        yield schema
        yield from schemas(schema)


def examples(node: Any) -> Iterator[dict[str, Any]]:
    """Every example of a body in the OpenAPI document."""
    if isinstance(node, dict):
        if isinstance(node.get("value"), dict):
            yield node["value"]
        for value in node.values():
            yield from examples(value)
    elif isinstance(node, list):
        for value in node:
            yield from examples(value)


# The document has no examples of these: they are asked anew, and each wrapping key is used once.
BYOK_HEADER = {"kid": "85a5ee42", "alg": "dir", "enc": ENC}
WRAPPED: list[dict[str, Any]] = [
    {"kid": "85a5ee42", "alg": "RSA-OAEP", "enc": ENC, "ciphertext": "d3JhcHBlZA"},
    {"schema_version": "1.0.0", "header": BYOK_HEADER, "ciphertext": "d3JhcHBlZA"},
    BYOK_HEADER,
]
DOCUMENT = json.loads((ROOT / "docs" / "openapi-strict.json").read_text("utf-8"))
BODIES = [*examples(DOCUMENT), *WRAPPED]
TEXTS = sorted({value for body in BODIES for value in body.values() if isinstance(value, str)})
SCHEMAS = list(dict.fromkeys(schemas()))


def outcome(schema: RequestSchema, load: Callable[..., Any], body: dict[str, Any]) -> Any:
    """What ``load`` makes of ``body``, or the refusal that it raises."""
    try:
        return comparable(load(schema, schema.expand_compact(body)))
    except (AppError, HsmError) as error:
        return type(error), str(error)


def is_read_quickly(schema: RequestSchema, body: dict[str, Any]) -> bool:
    try:
        return schema._good(schema.expand_compact(body)) is not None
    except (AppError, HsmError):
        return False


def comparable(value: Any) -> Any:
    """``value`` so that equal keys are equal."""
    match value:
        case dict():
            return {name: comparable(item) for name, item in value.items()}
        case list() | tuple():
            return [comparable(item) for item in value]
        case AppError() | HsmError() | partial():
            return type(value), comparable(value.args), getattr(value, "func", None)
        case _ if dataclasses.is_dataclass(value):
            return comparable(
                {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            )
        case _ if hasattr(value, "private_bytes"):
            return value.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return value


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@cache
def good_bodies(schema: type[RequestSchema]) -> list[dict[str, Any]]:
    """Those that ``schema`` reads quickly."""
    return [body for body in BODIES if is_read_quickly(schema(), body)]


@st.composite
def changed(draw: st.DrawFn, schema: RequestSchema) -> dict[str, Any]:
    """A good body, of this schema or another, with some members not as they were."""
    body = dict(draw(st.sampled_from(good_bodies(type(schema))) | st.sampled_from(BODIES)))
    names = st.sampled_from([*schema.fields, *body, "unknown"])
    for name in draw(st.sets(names, max_size=3)):
        same = [other[name] for other in BODIES if name in other]
        value = draw(anything | st.sampled_from(same or [None]) | st.sampled_from(TEXTS))
        body[name] = value
        if draw(st.booleans()):
            del body[name]
    return body


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
def test_good_bodies_are_read_quickly(schema):
    assert good_bodies(schema)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
@given(data=st.data())
def test_both_validations_agree(schema, data):
    body = data.draw(changed(schema()))
    assert outcome(schema(), RequestSchema.load, body) == outcome(schema(), Schema.load, body)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
def test_what_is_missing_is_said_in_our_words(schema):
    required = [field for field in schema().load_fields.values() if field.required]
    said = {field.error_messages[cause] for field in required for cause in ("required", "null")}
    assert said <= {"is required"}
