"""The pages of docs that are made of the OpenAPI document and of the causes of errors."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from scripts.openapi.operations import OPERATIONS
from scripts.openapi.responses import statuses
from scripts.openapi.texts import ERRORS

Members = dict[str, Any]

_LONGEST_EXAMPLE: Final = 76
_LONGEST_LINE: Final = 120
_FORMATS: Final = {
    "uuid": "UUID",
    "date-time": "RFC 3339",
    "date": "RFC 3339 date",
    "duration": "ISO 8601 duration",
}
_RANGES: Final = {
    "string": ("Length", " of ", " characters"),
    "integer": ("imum", " of ", ""),
    "array": ("Items", ", ", ""),
}
_SHARED: Final = (
    *("KeyResponse", "DescriptionResponse", "GrantResponse", "WrappedRequest", "ByokRequest"),
    *("ByokHeaderRequest", "KeySetResponse", "VersionResponse", "Rotation", "TargetRequest"),
    *("RecipientJwk", "RecipientResponse", "SignResponse", "PublicJwk", "Jwk"),
    *("KeyKind", "Sizes", "Offered", "OfferedAlgorithm", "OfferedKeyManagement"),
    *("OfferedContentEncryption", "OfferedImport", "Storages", "Error"),
)
"""Bodies that others refer to."""


def errors_page() -> str:
    """Return the table of all codes, and that of what keeps the service from being ready."""
    return _environment().get_template("errors.md.j2").render(errors=ERRORS, statuses=statuses())


def api_page(document: Members) -> str:
    """Return the reference of every endpoint, for people."""
    environment = _environment()
    environment.filters["resolved"] = lambda schema: _resolved(document, schema)
    environment.filters["refusals"] = lambda responses: _refusals(document, responses)
    operations = [
        (f"{one.method.upper()} {one.path}", document["paths"][one.path][one.method])
        for one in OPERATIONS.values()
    ]
    template = environment.get_template("api.md.j2")
    return template.render(document, operations=operations, shared=_SHARED)


def _environment() -> Environment:
    environment = Environment(  # noqa: S701  # Markdown, of our own texts
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=ChainableUndefined,
    )
    environment.filters |= {"type": _type, "words": _words, "name": _name, "examples": _examples}
    return environment


def _resolved(document: Members, schema: Members) -> Members:
    """Return what ``schema`` refers to, or itself."""
    found = document if "$ref" in schema else schema
    for name in schema.get("$ref", "").split("/")[1:]:
        found = found[name]
    return found


def _refusals(document: Members, responses: Members) -> Iterator[str]:
    for status, response in responses.items():
        if "$ref" in response:
            codes = _resolved(document, response)["description"].replace(" or ", " ")
            yield f"{status} {codes}"


def _name(schema: Members) -> str:
    """Return the name of the schema that is referred to."""
    return str(schema["$ref"].rpartition("/")[2])


def _words(words: Iterable[Any]) -> str:
    return " ".join(f"`{word}`" for word in words if word is not None)


def _type(schema: Members) -> str:
    """Return what a member is, in a few words, and what it is if it is absent."""
    default = schema.get("default")
    return _bare_type(schema) + (f", by default {default}" if default else "")


def _bare_type(schema: Members) -> str:
    match schema:
        case {"$ref": _}:
            name = _name(schema)
            return f"[{name}](#{name.lower()})"
        case {"anyOf": kinds} | {"oneOf": kinds}:
            return ", or ".join(dict.fromkeys(map(_type, kinds)))
        case {"enum": words}:
            return _words(words) + (", or null" if None in words else "")
        case {"const": word}:
            return _words([word if isinstance(word, str) else json.dumps(word)])
        case {"type": [*kinds]}:
            return ", or ".join(_kind(kind, schema) for kind in kinds)
        case _:
            return _kind(schema["type"], schema)


def _kind(kind: str, schema: Members) -> str:
    match kind:
        case "string" if schema.get("contentEncoding"):
            return "base64url"  # how many bytes is in its meaning
        case "string":
            what = _FORMATS.get(schema.get("format", ""), "text")
        case "array":
            held = schema["items"].get("oneOf", [schema["items"]])[0]
            what = f"array of {_type(held)}"
        case "object" if schema.get("additionalProperties"):
            what = f"object of {_type(schema['additionalProperties'])}"
        case "object" if members := schema.get("properties"):
            required = schema.get("required", ())
            names = (f"`{name}`{'*' if name in required else ''}" for name in members)
            what = f"object with {' '.join(names)}"
        case _:
            what = kind
    return f"{what}{_range(kind, schema)}"


def _range(kind: str, schema: Members) -> str:
    """Return how much there may be, if there is an end."""
    of, before, unit = _RANGES.get(kind, ("", "", ""))
    if (most := schema.get(f"max{of}")) is None:
        return ""
    return f"{before}{schema.get(f'min{of}', 'up')} to {most}{unit}"


def _examples(operation: Members) -> Iterator[tuple[str, str | None, str | None]]:
    """Give each title, with the request and its answer as they are shown."""
    requests = _values(operation.get("requestBody", {}))
    answers = _values(operation["responses"].get("200", {}))
    for name, example in (requests | answers).items():
        yield example["summary"], _shown(requests.get(name)), _shown(answers.get(name))


def _values(holder: Members) -> Members:
    """Return the examples of a request or an answer, by name."""
    media: Members = next(iter(holder.get("content", {}).values()), {})
    examples: Members = media.get("examples", {})
    return examples


def _shown(example: Members | None) -> str | None:
    if example is None:
        return None
    value = example["value"]
    if isinstance(value, str):
        return f"```text\n{value.rstrip()}\n```"
    line = json.dumps(_shortened(value), ensure_ascii=False)
    if len(line) > _LONGEST_LINE:
        line = json.dumps(_shortened(value), indent=2, ensure_ascii=False)
    return f"```json\n{line}\n```"


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
