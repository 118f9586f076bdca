"""Schemas of files that others read, as the package check-jsonschema has them."""

from importlib.resources import files

import jsonschema_rs


def validator_of(kind: str) -> jsonschema_rs.Validator:
    """Return what validates files of a kind, as ``compose-spec``."""
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / f"{kind}.json"
    return jsonschema_rs.validator_for(schema.read_text("utf-8"))
