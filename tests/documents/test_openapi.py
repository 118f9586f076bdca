"""The OpenAPI document is made of the code and says all of it; its examples are true."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from flask import Flask

import hsm
from app.errors import RegistryCause
from app.http.answers import HTTP_ERRORS, STATUS
from app.http.router import route
from app.jose import encoding
from app.schemas.loading import load
from app.schemas.messages.signing import VerifyRequest
from scripts.openapi import examples
from scripts.openapi.__main__ import files
from scripts.openapi.document import SCHEMAS as REAL_SCHEMAS
from scripts.openapi.document import document
from scripts.openapi.operations import OPERATIONS as REAL_OPERATIONS
from scripts.openapi.texts import ERRORS, MEANINGS
from scripts.throwaway import ROOT

Members = dict[str, Any]

DOCUMENT: Members = document()
SCHEMAS: Members = DOCUMENT["components"]["schemas"]
OPERATIONS: dict[str, Members] = {
    operation["operationId"]: operation
    for path in DOCUMENT["paths"].values()
    for operation in path.values()
}
FILES = files()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_files_of_docs_are_those_of_the_code(path):
    assert path.read_text("utf-8") == FILES[path], "run: make pages"


def test_the_reference_says_what_a_member_may_be():
    page = FILES[ROOT / "docs" / "api.md"]
    assert "| `count` | integer of 1 to 100, or null |" in page
    assert "| `limit` | query | integer of 1 to 200, by default 50 |" in page
    assert "| array of object with `kid` `keyset` `alg`*, 1 to 20 |" in page


def served(flask: Flask) -> set[tuple[str, str]]:
    """Return every path and method that ``flask`` has."""
    return {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in flask.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def test_every_method_of_every_rule_is_in_it_and_nothing_else():
    flask = Flask(__name__, static_folder=None)
    route(flask, pages=False)
    assert served(flask) == documented()


def documented() -> set[tuple[str, str]]:
    return {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}


def every_code() -> list[tuple[str, int]]:
    errors: dict[Any, Any] = dict(STATUS)
    known = [(error.code, int(status)) for error, status in errors.items()]
    return known + [(code, status) for status, (code, _) in HTTP_ERRORS.items()]


def test_every_error_that_callers_get_is_in_it():
    """405 is not the answer of any operation; all others are."""
    told = {
        (int(status), code)
        for operation in OPERATIONS.values()
        for status in operation["responses"]
        for code in codes(operation, status)
    }
    known = {(status, code) for code, status in every_code()}
    assert told == known - {(405, "method_not_allowed")}
    assert "405-method_not_allowed" in DOCUMENT["components"]["responses"]


def codes(operation: Members, status: str) -> list[str]:
    reference = operation["responses"][status].get("$ref", "")
    response = DOCUMENT["components"]["responses"].get(reference.rpartition("/")[2], {})
    content = response.get("content", {}).get("application/json", {})
    return content["schema"]["properties"]["error"]["enum"] if content else []


def test_every_code_has_its_cause_and_cure_and_one_status():
    known = every_code()
    assert (
        ERRORS["codes"].keys()
        == {code for code, _ in known}
        == set(SCHEMAS["Error"]["properties"]["error"]["enum"])
    )
    assert len(set(known)) == len(ERRORS["codes"])


def test_every_word_of_readiness_has_its_cause_and_cure():
    assert ERRORS["words"].keys() == {*hsm.Cause, *RegistryCause}


# --- Examples ---

NEVER_SHOWN = {
    *("CreateKeyRequest.pub", "CreateKeyRequest.priv", "PublicJwk.pub", "Jwk.pub"),
    *("OfferedContentEncryption.reason", "OfferedContentEncryption.most_bytes"),
    *("OfferedImport.crv", "OfferedImport.reason", "Storages.reason"),
    *("WrappedRequest.ciphertext", "ByokRequest.ciphertext"),
}
"""SoftHSM has no ML-DSA, all content encryption, and wraps; what is wrapped is for one key."""


def described(schema: Members) -> Iterator[tuple[str, Members]]:
    """Yield the members of ``schema`` at any depth."""
    for name, member in schema.get("properties", {}).items():
        yield name, member
        yield from described(member)
    items = schema.get("items", {})
    for inner in (items, *items.get("oneOf", ()), schema.get("additionalProperties")):
        if inner and isinstance(inner, dict):
            yield from described(inner)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_member_is_described_and_shown(name):
    for member, schema in described(SCHEMAS[name]):
        assert schema["description"], member
        is_told = {"enum", "const", "$ref", "anyOf", "oneOf", "properties"} & schema.keys()
        is_whole = schema.get("type") in ("object", "array", ["object", "null"])
        is_shown = schema.get("examples") or f"{name}.{member}" in NEVER_SHOWN
        assert is_told or is_whole or is_shown, member


def test_a_summary_is_plain_text():
    """Unlike a description (OpenAPI 3.1 §4.8.10): /docs would show marks of Markdown."""
    summaries = [operation["summary"] for operation in OPERATIONS.values()]
    assert len(summaries) > 40
    assert not [summary for summary in summaries if "`" in summary]


def test_no_description_is_of_nothing():
    for name, meanings in MEANINGS.items():
        if isinstance(meanings, dict) and not name.endswith("Query"):
            assert meanings.keys() <= {member for member, _ in described(SCHEMAS[name])}


def validator(schema: Members) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        schema | {"components": DOCUMENT["components"]}, validate_formats=True
    )


EXAMPLES = [
    (operation, part, one["value"])
    for operation, members in OPERATIONS.items()
    for part, holder in [
        ("request", members.get("requestBody", {})),
        ("response", members["responses"].get("200", {})),
    ]
    for media in holder.get("content", {}).values()
    for one in media.get("examples", {}).values()
]


@pytest.mark.parametrize(("operation", "part", "value"), EXAMPLES)
def test_examples_hold_their_own_schemas(operation, part, value):
    members = OPERATIONS[operation]
    holder = members["requestBody"] if part == "request" else members["responses"]["200"]
    for media in holder["content"].values():
        validator(media["schema"]).validate(value)


def test_examples_of_errors_hold_the_schema():
    for response in DOCUMENT["components"]["responses"].values():
        media = response["content"]["application/json"]
        for one in media["examples"].values():
            validator(media["schema"]).validate(one["value"])


REAL: dict[str, Any] = {schema.__name__: schema for schema in REAL_SCHEMAS}


@pytest.mark.parametrize(
    ("operation", "value"), [(name, value) for name, part, value in EXAMPLES if part == "request"]
)
def test_examples_of_requests_load(operation, value):
    (schema, *_) = REAL_OPERATIONS[operation].body
    load(REAL[schema](), value, {})


def test_the_signatures_of_the_examples_are_valid():
    """Of what can be checked without the token."""
    told = [one for one in examples.EXCHANGES if one["operation"] == "signing_verify"]
    assert len(told) == 13
    assert all(one["response"]["valid"] for one in told)
    by_key = [one["request"] for one in told if "jwk" in one["request"]]
    for body in by_key:
        loaded = load(VerifyRequest(), body, {})
        header, data = loaded["protected"], loaded["data"]
        signing_input = encoding.signing_input(header.protected, data)
        assert hsm.is_valid(loaded["jwk"].key, header.alg, signing_input, loaded["signature"])


# --- Schemas are exact ---

GOOD_OCTETS = ["", "AA", "AAA", "AAAA", "_-8"]
BAD_OCTETS = ["A", "AB", "AAB", "AAAAA", "AA==", "AA+A", "AA/A", "AA AA", "AAAA\n"]


@pytest.mark.parametrize("text", [*GOOD_OCTETS, *BAD_OCTETS])
def test_the_pattern_of_base64url_is_what_the_service_takes(text):
    try:
        encoding.decode(text)
    except ValueError:
        is_good = False
    else:
        is_good = True
    assert is_good is (text in GOOD_OCTETS)
    pattern = SCHEMAS["MacResponse"]["properties"]["mac"]
    assert validator(pattern).is_valid(text) is is_good


FORMS = [
    ("signing_verify", {"protected": "e30", "data": "", "signature": ""}, True),
    ("signing_verify", {"protected": "e30", "payload": "", "signature": ""}, True),
    ("signing_verify", {"jws": "e30.."}, True),
    ("signing_verify", {"jws": "e30.", "kid": "a"}, False),
    ("signing_verify", {"jws": "e30..", "data": ""}, True),
    ("signing_verify", {"jws": "e30.AA.", "data": ""}, False),
    ("signing_sign", {"kid": "a", "alg": "ES256", "data": "", "header": {}}, True),
    ("signing_sign", {"kid": "a", "data": "", "header": {}}, False),
    ("signing_sign", {"kid": "a", "data": "", "protected": "e30"}, True),
    ("signing_sign", {"kid": "a", "data": "", "protected": "e30", "typ": "JWT"}, False),
    ("signing_verify", {"protected": "e30", "data": "", "payload": "", "signature": ""}, False),
    ("signing_verify", {"protected": "e30", "signature": ""}, False),
    ("encryption_decrypt", {"protected": "e30", "iv": "", "ciphertext": "", "tag": ""}, True),
    ("encryption_decrypt", {"jwe": "e30...."}, True),
    ("encryption_decrypt", {"jwe": "e30....", "aad": ""}, False),
    ("encryption_decrypt", {"protected": "e30"}, False),
    ("keys_create", {"kty": "oct", "alg": "A128GCM"}, True),
    ("keys_create", {"kty": "oct"}, False),
    ("keys_create", {"kty": "oct", "alg": "ES256"}, False),
    ("keys_create", {"kty": "RSA"}, True),
    ("keys_create", {"kty": "RSA", "bits": 1024}, False),
    ("keys_create", {"kty": "RSA", "n": "AQAB"}, False),
    ("keys_create", {"kty": "EC", "alg": "ES256"}, False),
    ("keys_create", {"kty": "EC", "crv": "P-256", "alg": None, "d": "AQ"}, True),
    ("keys_create", {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"}, False),
    ("keys_create", {"kty": "OKP"}, True),
    ("keys_create", {"kty": "AES", "alg": "A128GCM"}, False),
    ("signing_sign", {"kid": "a", "alg": "HS256", "data": ""}, False),
    ("keys_change_tags_post", {"tags": ["_mine"]}, False),
    ("grants_grant", {"operations": ["manage"]}, False),
    ("batch_answer", {"requests": [{"op": "mac", "body": {"kid": "a"}}]}, False),
]


@pytest.mark.parametrize(("operation", "body", "is_good"), FORMS)
def test_bodies_are_told_apart(operation, body, is_good):
    schema = OPERATIONS[operation]["requestBody"]["content"]["application/json"]["schema"]
    assert validator(schema).is_valid(body) is is_good
