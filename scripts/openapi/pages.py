"""The pages of docs that are made of the OpenAPI document and of the tables of errors."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from scripts.openapi import failures
from scripts.openapi.failures import Advice
from scripts.openapi.operations import OPERATIONS

Members = dict[str, Any]

_MADE: Final = "<!-- Made by `make pages`; do not edit. -->"
_LONGEST_EXAMPLE: Final = 76
_LONGEST_LINE: Final = 120
_EVERYWHERE: Final = "X-Request-Id"
_ERRORS_HEAD: Final = f"""\
# Errors

{_MADE}

Every error is JSON of two members, on every path and for every status: `error` is one of these
codes, for programs, and `description` says what is wrong with which member, for people.

| Code | Status | Cause | What to do |
|---|---|---|---|
"""
_READY_HEAD: Final = """
## Not ready

While `GET /health/ready` answers 503, its `description` is `phase: word: reason`. The phase is
`starting` or `unavailable`, the reason is for people, and the word is one of these:

| Word | Cause | What to do |
|---|---|---|
"""


def errors_page() -> str:
    """Return the table of all codes, and that of what keeps the service from being ready."""
    statuses = failures.statuses()
    codes = "".join(
        f"| `{code}` | {statuses[code]} | {advice.cause} | {advice.cure} |\n"
        for code, advice in failures.CODES.items()
    )
    causes = "".join(_row(f"`{word}`", advice) for word, advice in failures.CAUSES.items())
    return f"{_ERRORS_HEAD}{codes}{_READY_HEAD}{causes}"


def _row(name: str, advice: Advice) -> str:
    return f"| {name} | {advice.cause} | {advice.cure} |\n"


# --- The reference ---


def api_page(document: Members) -> str:
    """Return the reference of every endpoint, for people."""
    return "\n".join(_api_lines(document))


def _api_lines(document: Members) -> Iterator[str]:
    yield "# API reference"
    yield ""
    yield _MADE
    yield ""
    yield document["info"]["description"].strip()
    yield ""
    yield "Programs read [openapi.json](openapi.json), which the service has at `/openapi.json`."
    yield "A star marks what must be there. Long texts of examples are cut."
    yield ""
    yield f"Every request may have the header `{_EVERYWHERE}`, and every answer has it:"
    yield document["components"]["parameters"][_EVERYWHERE]["description"]
    for tag in document["tags"]:
        yield ""
        yield f"## {tag['name']}"
        yield ""
        yield tag["description"]
        for operation in OPERATIONS.values():
            if operation.tag == tag["name"]:
                methods = document["paths"][operation.path]
                heading = f"{operation.method.upper()} {operation.path}"
                yield from _operation(document, heading, methods[operation.method])
    yield ""
    yield "## Shared bodies"
    for name in _SHARED:
        yield ""
        yield f"### {name}"
        yield from _members(document, document["components"]["schemas"][name])
    yield ""


_SHARED: Final = (
    "DescriptionResponse",
    "GrantResponse",
    "PublicJwk",
    "Jwk",
    "KeyKind",
    "Sizes",
    "Offered",
    "OfferedAlgorithm",
    "OfferedKeyManagement",
    "OfferedContentEncryption",
    "Error",
)
"""What others refer to."""


def _operation(document: Members, heading: str, operation: Members) -> Iterator[str]:
    yield ""
    yield f"### {heading}"
    yield ""
    yield f"{operation['summary']}. {operation.get('description', '')}".strip()
    parameters = [_resolved(document, one) for one in operation["parameters"]]
    parameters = [one for one in parameters if one["name"] != _EVERYWHERE]
    if parameters:
        yield ""
        yield "| Parameter | In | Type | Meaning |"
        yield "|---|---|---|---|"
    for one in parameters:
        name = f"`{one['name']}`{'*' if one.get('required') else ''}"
        yield f"| {name} | {one['in']} | {_type(one['schema'])} | {one['description']} |"
    if "requestBody" in operation:
        (media,) = operation["requestBody"]["content"].values()
        yield from _body(document, "Request", media)
    for status, response in operation["responses"].items():
        for media_type, media in response.get("content", {}).items():
            title = f"Answer {status}: {response['description']}"
            yield from _body(document, title, media, media_type)
            break  # others are the same in another notation
        if "content" not in response and "$ref" not in response:
            yield ""
            yield f"**Answer {status}**: {response['description']}"
    yield ""
    yield f"**Errors**: {', '.join(_refusals(document, operation))}"
    yield from _examples(operation)


def _examples(operation: Members) -> Iterator[str]:
    """Show each request with its answer."""
    asked = _values(operation.get("requestBody", {}))
    told = _values(operation["responses"].get("200", {}))
    for name in {**asked, **told}:
        yield ""
        yield f"{(asked.get(name) or told[name])['summary']}:"
        if name in asked:
            yield ""
            yield from _example(asked[name]["value"])
        if name in asked and name in told:
            yield ""
            yield "The answer:"
        if name in told:
            yield ""
            yield from _example(told[name]["value"])


def _values(holder: Members) -> Members:
    """Return the examples of a request or an answer, by name."""
    media: Members = next(iter(holder.get("content", {}).values()), {})
    examples: Members = media.get("examples", {})
    return examples


def _refusals(document: Members, operation: Members) -> Iterator[str]:
    for status, response in operation["responses"].items():
        if "$ref" in response:
            codes = _resolved(document, response)["description"].replace(" or ", " ")
            yield f"{status} {codes}"


def _body(
    document: Members, title: str, media: Members, media_type: str = "application/json"
) -> Iterator[str]:
    schema = media["schema"]
    forms = schema.get("oneOf", [schema])
    shown = "" if media_type == "application/json" else f" (`{media_type}`)"
    yield ""
    yield f"**{title}**{shown}" + (", one of these:" if len(forms) > 1 else "")
    for form in forms:
        name = form.get("$ref", "").rpartition("/")[2]
        if name in _SHARED:
            yield ""
            yield f"{_link(name)}."
        elif name:
            if len(forms) > 1:
                yield ""
                yield f"`{name}`:"
            yield from _members(document, _resolved(document, form))


def _members(document: Members, schema: Members) -> Iterator[str]:
    required = schema.get("required", ())
    if not schema.get("properties"):
        return
    yield ""
    yield "| Member | Type | Meaning |"
    yield "|---|---|---|"
    for name, member in schema["properties"].items():
        star = "*" if name in required else ""
        yield f"| `{name}`{star} | {_type(member)} | {member['description']} |"
    kinds = [kind for kind in schema.get("oneOf", ()) if "title" in kind]
    if kinds:
        yield ""
        yield f"| With `kty` | {' | '.join(_KIND_COLUMNS.values())} | Required |"
        yield "|---" * (len(_KIND_COLUMNS) + 2) + "|"
    for kind in kinds:
        columns = [
            _names(kind["properties"].get(name, {}).get("enum", ())) for name in _KIND_COLUMNS
        ]
        needed = _names(name for name in kind["required"] if name != "kty")
        yield f"| `{kind['title']}` | {' | '.join(columns)} | {needed} |"


_KIND_COLUMNS: Final = {"alg": "`alg`", "crv": "`crv`"}


def _names(names: Iterable[Any]) -> str:
    return " ".join(f"`{name}`" for name in names if name is not None)


def _type(schema: Members) -> str:
    """Return what a member is, in a few words."""
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema or "oneOf" in schema:
        kinds = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
        return ", or ".join(dict.fromkeys(_type(kind) for kind in kinds))
    if "enum" in schema:
        words = _names(schema["enum"])
        return f"{words}, or null" if None in schema["enum"] else words
    if "const" in schema:
        return f"`{schema['const']}`"
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return ", or ".join(_kind(kind, schema) for kind in kinds)


def _kind(kind: str, schema: Members) -> str:
    match kind:
        case "string" if schema.get("contentEncoding"):
            return "base64url"
        case "string":
            return {"uuid": "UUID", "date-time": "RFC 3339"}.get(schema.get("format", ""), "text")
        case "array" if "oneOf" in schema["items"]:
            return "array of objects"
        case "array":
            return f"array of {_type(schema['items'])}"
        case "object" if schema.get("additionalProperties"):
            return f"object of {_type(schema['additionalProperties'])}"
        case _:
            return kind


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})" if name in _SHARED else f"`{name}`"


def _example(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield "```text"
        yield from value.splitlines()
    else:
        yield "```json"
        line = json.dumps(_shortened(value), ensure_ascii=False)
        is_short = len(line) <= _LONGEST_LINE
        yield line if is_short else json.dumps(_shortened(value), indent=2, ensure_ascii=False)
    yield "```"


def _shortened(value: Any) -> Any:
    """Return ``value`` with long texts cut; whole ones are in the document."""
    match value:
        case dict():
            return {name: _shortened(one) for name, one in value.items()}
        case list():
            return [_shortened(one) for one in value]
        case str() if len(value) > _LONGEST_EXAMPLE:
            return f"{value[:_LONGEST_EXAMPLE]}…"
        case _:
            return value


def _resolved(document: Members, schema: Members) -> Members:
    """Return what ``schema`` refers to, or itself."""
    if "$ref" not in schema:
        return schema
    _, *path = schema["$ref"].split("/")
    found = document
    for name in path:
        found = found[name]
    return found
