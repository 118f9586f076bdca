"""PKCS#11 URIs (RFC 7512): what they say of a key and of where it is; each of it restricts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote_to_bytes

from app.errors import BadRequest
from hsm import OtherName

SCHEME: Final = "pkcs11:"
_IS_PAIR: Final[Mapping[str, bool]] = MappingProxyType({"private": True, "secret-key": False})
"""The types that can be adopted (RFC 7512 §2.3)."""

_ESCAPED: Final = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs11Uri:
    """What a URI says: of the key, its ``name``, and of the token, its ``places``."""

    name: OtherName
    places: Mapping[str, str]

    def require_place(self, places: Mapping[str, str]) -> None:
        """Raise ``BadRequest`` unless the token is at ``places``."""
        for name, value in self.places.items():
            if name not in places:
                raise BadRequest(f"The URI has the attribute '{name}', which is not known")
            if places[name] != value:
                raise BadRequest(f"The URI is of another token: its '{name}' is not of this one")


def read_uri(uri: str) -> Pkcs11Uri:
    """Return what ``uri`` says; raise ``BadRequest`` if it cannot name a key.

    What follows a question mark is how to get at the token (§2.4), and is ignored.
    """
    attributes = _attributes(path_of(uri).removeprefix(SCHEME))
    key_id, label = attributes.pop("id", None), attributes.pop("object", None)
    if key_id is None and label is None:
        raise BadRequest("The URI names no key: it has neither 'id' nor 'object'")
    kind = _text("type", attributes.pop("type")) if "type" in attributes else None
    if kind is not None and kind not in _IS_PAIR:
        raise BadRequest(f"The URI has another 'type' than: {', '.join(_IS_PAIR)}")
    return Pkcs11Uri(
        name=OtherName(
            key_id=key_id,
            label=None if label is None else _text("object", label),
            is_pair=_IS_PAIR[kind] if kind else None,
        ),
        places={name: _text(name, value) for name, value in attributes.items()},
    )


def path_of(name: str) -> str:
    """Return ``name``, if it is a URI without its query, which may hold a PIN (§2.4)."""
    return name.partition("?")[0] if name.startswith(SCHEME) else name


def _attributes(path: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in path.split(";"):
        name, is_given, value = part.partition("=")
        if not is_given or name in found or not _ESCAPED.fullmatch(value):
            raise BadRequest("The URI is not one of PKCS#11 (RFC 7512)")
        found[name] = unquote_to_bytes(value)
    return found


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"The URI has an attribute '{name}' that is not UTF-8") from None
