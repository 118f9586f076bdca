"""Keys and key sets as people read them, whoever was asked for them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.terminal.output import cell, print_json, print_table

_KEYS: Final = ("kid", "kty", "alg", "state", "owner", "name", "alias", "tags", "expires")
_KEYSETS: Final = ("name", "kty", "alg", "owner", "current", "next", "rotates")
_VERSIONS: Final = ("version", "kid", "state", "created", "published", "current", "retires")

Members = Mapping[str, Any]


def print_keys(keys: Sequence[Members], *, as_json: bool) -> None:
    """Print a list of keys."""
    _print_all(_KEYS, keys, as_json=as_json)


def print_keysets(keysets: Sequence[Members], *, as_json: bool) -> None:
    """Print a list of key sets."""
    _print_all(_KEYSETS, keysets, as_json=as_json)


def print_keyset(keyset: Members, *, as_json: bool) -> None:
    """Print a key set and, in a table of their own, its versions."""
    if as_json:
        print_json(keyset)
        return
    members = {name: keyset[name] for name in keyset if name != "versions"}
    print_table(("member", "value"), ((name, _spaced(members[name])) for name in members))
    print_table(
        _VERSIONS, ([version[name] for name in _VERSIONS] for version in keyset["versions"])
    )


def _spaced(value: Any) -> Any:
    is_object = isinstance(value, dict)
    return " ".join(f"{name}={value[name]}" for name in value) if is_object else cell(value)


def _print_all(columns: Sequence[str], items: Sequence[Members], *, as_json: bool) -> None:
    if as_json:
        print_json(items)
    else:
        print_table(columns, ([cell(item.get(name)) for name in columns] for item in items))
