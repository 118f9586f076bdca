"""The key that a request names: by its kid, or as the current version of a key set."""

from typing import Any

from app.errors import BadRequest
from app.kid import KeySetName, is_alias
from app.schemas.messages.serializations import refuse_beside
from app.schemas.schema import RequestSchema


def with_keyset(members: dict[str, Any]) -> dict[str, Any]:
    """Return ``members`` with the name of a key set, if it has one, in place of a kid.

    Raises ``BadRequest`` if it has both.
    """
    name = members.get("keyset")
    if name is None:
        return members
    refuse_beside(members, "keyset", "kid")
    if not isinstance(name, str):
        raise BadRequest("Field 'keyset' must be a string")
    if not is_alias(name):
        raise BadRequest("Field 'keyset' must be the name of a key set")
    return {**members, "kid": KeySetName.of(name)}


class NamingRequest(RequestSchema):
    """A body that names the key to be used."""

    def expand_compact(self, members: dict[str, Any]) -> dict[str, Any]:
        """See ``RequestSchema``; a key set may be named in place of a key."""
        return with_keyset(members)
