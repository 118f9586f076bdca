"""The parts that a header may have in the JSON Serializations (RFC 7515 §7.2, RFC 7516 §7.2)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.errors import BadRequest
from app.jose import encoding, strict_json
from app.schemas.fields import SHOWN, fail, require_bytes

Members = Mapping[str, Any]

_PROTECTED_ONLY: Final = ("crit", "zip", "b64")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderParts:
    """A header: the protected part as received, if there is one, and others by their members."""

    protected: Any
    others: Mapping[str, Any]

    @property
    def text(self) -> Any:
        """What of it is signed or authenticated: an empty string where nothing is protected."""
        return "" if self.protected is None else self.protected

    def joined(self, protected: Members) -> Members:
        """Return the members of all parts; refuse a member of two, or that had to be protected."""
        header = dict(protected)
        for name, part in self.others.items():
            if not isinstance(part, dict):
                fail(BadRequest(f"Field '{name}' must be an object"))
            for member in part:
                if member in header:
                    shown = member[:SHOWN]
                    fail(BadRequest(f"Header member '{shown}' is in more than one part"))
                if member in _PROTECTED_ONLY:
                    fail(BadRequest(f"Header member '{member}' must be protected"))
            header |= part
        return header


def given(members: Members, names: Iterable[str]) -> dict[str, Any]:
    """Return those of ``members`` that are there, in the order of ``names``; null is nothing."""
    return {name: members[name] for name in names if members.get(name) is not None}


def with_parts(members: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return ``members`` with all parts of the header in place of the protected one."""
    others = given(members, names)
    if not others:
        return members
    return members | {"protected": HeaderParts(protected=members.get("protected"), others=others)}


def read_parts(value: Any, name: str | None) -> tuple[str, Members]:
    """Return the protected part of a header, and the members of all parts.

    Fails with ``BadRequest`` if there is none, or it is no JSON object.
    """
    if not isinstance(value, HeaderParts):
        return value, _object(value, name)
    protected = {} if value.protected is None else _object(value.protected, name)
    return value.text, value.joined(protected)


def _object(protected: Any, name: str | None) -> Members:
    if not isinstance(protected, str):
        fail(BadRequest(f"Field '{name}' must be a string"))
    try:
        return strict_json.loads(require_bytes(protected, name))
    except BadRequest as error:
        fail(error)
    except ValueError:
        fail(BadRequest(f"Field '{name}' is not a JSON object"))


def names_in(value: Any) -> Members:
    """Return the members of a header that has been read before."""
    protected = value.protected if isinstance(value, HeaderParts) else value
    header = strict_json.loads(encoding.decode(protected)) if protected else {}
    return value.joined(header) if isinstance(value, HeaderParts) else header
