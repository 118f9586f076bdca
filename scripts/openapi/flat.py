"""Schemas as generators of clients read them: one type each, and no demands on several members."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from scripts.openapi.types import reference

Members = dict[str, Any]

_FOR_PEOPLE: Final = ("description", "examples")
_FORMATS: Final = ("date", "date-time")
"""Those that languages have a type for. A kid stays text: an alias is taken in its place."""

_NULL: Final[Members] = {"type": "null"}
_TYPE_OF: Final = {str: "string", bool: "boolean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flattening:
    """What turns strict schemas into flat ones: OpenAPI 3.1 into 3.0."""

    schemas: Members
    """The strict schemas by name."""
    names: Members
    """Names that differ in the flat document."""
    inlined: frozenset[str]
    """Those that are told where they are referred to, as their name is another's."""

    def flat(self, schema: Members, *, has_nulls: bool) -> Members:
        """Return ``schema`` with one type, or a reference and nothing beside it.

        It ``has_nulls`` in answers alone: in a request null says what absence does.
        """
        forms = _forms(schema) if has_nulls else _real(_forms(schema))
        name = forms[0].get("$ref", "").rpartition("/")[2] if len(forms) == 1 else ""
        if name and name not in self.inlined:
            return reference(self.names.get(name, name))
        return self._of_one_type(self._solved(schema), has_nulls=has_nulls)

    def _of_one_type(self, schema: Members, *, has_nulls: bool) -> Members:
        types = _types(schema)
        real = [one for one in types if one != "null"]
        flat: Members = {"type": real[0]} if len(real) == 1 else {}
        if flat and has_nulls and types != real:
            flat["nullable"] = True
        if schema.get("format") in _FORMATS:
            flat["format"] = schema["format"]
        flat |= _told(schema) | self._inside(schema, has_nulls=has_nulls)
        if schema.get("required"):
            flat["required"] = schema["required"]
        return flat

    def _inside(self, schema: Members, *, has_nulls: bool) -> Members:
        """Return the schemas of what is in an array or an object."""
        inside: Members = {
            name: self.flat(schema[name], has_nulls=has_nulls)
            for name in ("items", "additionalProperties")
            if schema.get(name)
        }
        if "properties" in schema:
            inside["properties"] = {
                name: self.flat(member, has_nulls=has_nulls)
                for name, member in schema["properties"].items()
            }
        if not has_nulls:
            _leave_out(inside.get("properties", {}), schema.get("required", ()))
        return inside

    def _solved(self, schema: Members) -> Members:
        """Return ``schema`` without references and alternatives at its top."""
        if "$ref" in schema:
            return self._solved(self.schemas[schema["$ref"].rpartition("/")[2]])
        forms = _forms(schema)
        if forms == [schema]:
            return schema
        told = {name: schema[name] for name in _FOR_PEOPLE if name in schema}
        return _united([self._solved(form) for form in forms]) | told


def _leave_out(members: Members, required: Iterable[str]) -> None:
    """Have arrays that are not ``required`` be null: else clients in Java send an empty one."""
    for name in members.keys() - set(required):
        if members[name].get("type") == "array":
            members[name]["nullable"] = True


def _forms(schema: Members) -> list[Members]:
    """Return the alternatives of ``schema``; without a null those beside a type are demands."""
    forms: list[Members] = schema.get("oneOf") or schema.get("anyOf") or [schema]
    return [schema] if "type" in schema and _NULL not in forms else forms


def _real(forms: list[Members]) -> list[Members]:
    return [form for form in forms if form != _NULL]


def _types(schema: Members) -> list[str]:
    match schema:
        case {"type": [*types]}:
            return types
        case {"type": str(one)}:
            return [one]
        case {"const": value}:
            return [_TYPE_OF[type(value)]]
        case {"oneOf": forms} | {"anyOf": forms}:
            return list(dict.fromkeys(one for form in forms for one in _types(form)))
        case _:
            return []


def _words(schema: Members) -> list[Any]:
    words = [schema["const"]] if "const" in schema else schema.get("enum", [])
    return [word for word in words if word is not None]


def _told(schema: Members) -> Members:
    """Return what is said of ``schema`` to people, and a value of it."""
    words = ", ".join(f"`{word}`" for word in _words(schema))
    texts = (schema.get("description", ""), f"One of {words}." if words else "")
    description = " ".join(filter(None, texts))
    examples = schema.get("examples", ())
    return {
        **({"description": description} if description else {}),
        **({"example": examples[0]} if examples else {}),
    }


def _united(forms: list[Members]) -> Members:
    """Return one schema that permits whatever one of ``forms`` does."""
    types = list(dict.fromkeys(one for form in forms for one in _types(form)))
    whole: Members = {"type": types}
    real = _real(forms)
    words = [_words(form) for form in real]
    if all(words):
        whole["enum"] = list(dict.fromkeys(word for some in words for word in some))
    if any("items" in form for form in real):
        whole["items"] = _any_of([form["items"] for form in real if "items" in form])
    if any("properties" in form for form in real):
        whole["properties"] = _members(real)
        whole["required"] = [
            name
            for name in real[0].get("required", ())
            if all(name in form.get("required", ()) for form in real)
        ]
    return whole


def _members(forms: Iterable[Members]) -> Members:
    """Return all members that ``forms`` have."""
    found: dict[str, list[Members]] = {}
    for form in forms:
        for name, member in form.get("properties", {}).items():
            found.setdefault(name, []).append(member)
    return {name: _any_of(members) for name, members in found.items()}


def _any_of(forms: list[Members]) -> Members:
    if all(dict(_essence(form)) == dict(_essence(forms[0])) for form in forms):
        return forms[0]
    told = {name: value for name, value in forms[0].items() if name in _FOR_PEOPLE}
    return {"anyOf": forms} | told


def _essence(schema: Members) -> Iterator[tuple[str, Any]]:
    """Give the members of ``schema`` that are not for people."""
    return ((name, one) for name, one in schema.items() if name not in _FOR_PEOPLE)
