"""The serializations of messages (RFC 7515 §7, RFC 7516 §7): their members and parts."""

from typing import Any, Final

from app.errors import BadRequest
from app.schemas.fields import Choice, require_bytes

COMPACT_MEMBERS: Final = frozenset({"jwe", "jws"})
"""Members that are a whole message each."""

FLATTENED: Final = "flattened"
COMPACT: Final = "compact"
GENERAL: Final = "general"
JWS_PARTS: Final = ("protected", "data", "signature")
JWE_PARTS: Final = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
JWS_OTHERS: Final = ("payload", "header", "signatures")
JWE_OTHERS: Final = ("aad", "header", "unprotected", "recipients")
"""Members of the JSON Serializations that the compact one has no place for."""


def serialization() -> Choice:
    """Return the field that says in which form to answer."""
    return Choice(FLATTENED, COMPACT, load_default=FLATTENED, allow_none=True)


def taken_apart(
    members: dict[str, Any], name: str, parts: tuple[str, ...], *others: str
) -> dict[str, Any]:
    """Return ``members`` with what the compact message ``name`` stands for, if there is one.

    Refuses any of it beside it.
    """
    text = members.get(name)
    if text is None:
        return members
    for other in (*parts, *others):
        refuse_beside(members, name, other)
    if not isinstance(text, str):
        raise BadRequest(f"Field '{name}' must be a string")
    pieces = text.split(".")
    if len(pieces) != len(parts):
        raise BadRequest(f"Field '{name}' must have {len(parts)} parts (Compact Serialization)")
    for piece in pieces:
        require_bytes(piece, name)
    return members | dict(zip(parts, pieces, strict=True))


def refuse_beside(members: dict[str, Any], name: str, other: str) -> None:
    """Refuse two members of which one only may be there."""
    if members.get(name) is not None and members.get(other) is not None:
        raise BadRequest(f"Field '{other}' does not go with '{name}'")
