"""What is written by hand: meanings of members, links, errors, names."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).parent


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((_HERE / name).read_text("utf-8"))


SKELETON: Final[Mapping[str, Any]] = _read("skeleton.toml")
MEANINGS: Final[Mapping[str, Any]] = _read("meanings.toml")
LINKS: Final[Mapping[str, Any]] = _read("links.toml")
ERRORS: Final[Mapping[str, Any]] = _read("errors.toml")
PLAIN: Final[Mapping[str, Any]] = _read("plain.toml")


def meaning(schema: str, member: str) -> str:
    """Return what ``member`` means in ``schema``; raise ``KeyError`` if nothing says it."""
    text: str = MEANINGS.get(schema, {}).get(member) or MEANINGS[member]
    return text
