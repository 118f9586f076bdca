"""Bodies and queries of managing keys: lists, changes, tags, grants."""

from collections.abc import Mapping
from typing import Any, Final

from marshmallow import Schema, fields, post_load, validates_schema

from app.errors import BadRequest
from app.jose import encoding
from app.kid import is_kid
from app.rights import GRANTABLE, Right
from app.schemas.fields import Choice, Text, fail
from app.schemas.key_members import KeyMembers
from app.schemas.labels import (
    LONGEST,
    Alias,
    Day,
    Duration,
    Instant,
    InstantToCome,
    Name,
    NamesField,
    TagsField,
)
from app.schemas.schema import RequestSchema

STATES: Final = ("active", "deactivated", "compromised")
"""Those that callers may set."""

SHOWN_STATES: Final = (*STATES, "destroying")
MOST_KEYS: Final = 200
DEFAULT_KEYS: Final = 50


class Owner(Text):
    """Whose keys are asked for."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> str:
        text = self._text(value)
        if "\0" in text:
            fail(BadRequest(f"Field '{attr}' must be the name of a principal, like token:ci"))
        return text


class ListQuery(RequestSchema):
    """GET /keys."""

    kty = Name()
    alg = Name()
    state = Choice(*SHOWN_STATES)
    tag = Name()
    owner = Owner()
    unused_since = Day()
    limit = Text(load_default=str(DEFAULT_KEYS))
    after = Text()

    @post_load
    def make(self, query: dict[str, Any], **_kwargs: Any) -> Mapping[str, Any]:
        """Return the filters."""
        filters = query | {"limit": limit_of(query["limit"])}
        return filters | {"after": _kid_of(query["after"])} if "after" in query else filters


class JwksQuery(RequestSchema):
    """GET /.well-known/jwks.json."""

    owner = Owner()
    tag = Name()
    keyset = Alias()


def limit_of(text: str) -> int:
    """Return how many are asked for; raise ``BadRequest``."""
    if not (text.isascii() and text.isdigit() and len(text) < LONGEST):
        raise BadRequest("Field 'limit' must be a whole number")
    if not 1 <= int(text) <= MOST_KEYS:
        raise BadRequest(f"Field 'limit' must be between 1 and {MOST_KEYS}")
    return int(text)


def cursor_of(kid: str | None) -> str | None:
    """Return what a caller shows to go on after ``kid``."""
    return None if kid is None else encoding.encode(kid.encode("ascii"))


def _kid_of(cursor: str) -> str:
    try:
        kid = encoding.decode(cursor).decode("ascii")
    except ValueError:
        kid = ""
    if not is_kid(kid):
        raise BadRequest("Field 'after' must be the one that the page before gave")
    return kid


class DescriptionResponse(KeyMembers):
    """A key, as those see it who may read it."""

    size = fields.Integer(required=True, allow_none=True)
    state = fields.String(required=True)
    name = fields.String(required=True, allow_none=True)
    alias = fields.String(required=True, allow_none=True)
    owner = fields.String(required=True)
    tags = fields.List(fields.String(), required=True)
    created = Instant(required=True)
    activated = Instant(required=True, allow_none=True)
    deactivated = Instant(required=True, allow_none=True)
    expires = Instant(required=True, allow_none=True)
    origin = fields.String(required=True)
    residency = fields.String(required=True)
    storage = fields.String(required=True)
    last_used = Day(required=True, allow_none=True)
    jwk = fields.Dict()
    digest = fields.Boolean()
    destroy_after = Duration()
    destroys = Instant()


class ListResponse(Schema):
    """A page of keys; ``after`` is null on the last one."""

    keys = fields.List(fields.Nested(DescriptionResponse), required=True)
    after = fields.Function(lambda page: cursor_of(page.after), required=True)


class ChangeRequest(RequestSchema):
    """PATCH /keys/{kid}: what is given changes; null takes ``expires``, ``name``, ``alias``."""

    state = Choice(*STATES, allow_none=True)
    expires = InstantToCome(allow_none=True)
    name = Name(allow_none=True)
    alias = Alias(allow_none=True)
    owner = Text(allow_none=True)

    @post_load
    def make(self, body: dict[str, Any], **_kwargs: Any) -> Mapping[str, Any]:
        """Return the columns to set."""
        columns = {"expires_at" if name == "expires" else name: body[name] for name in body}
        absent = {name for name in ("state", "owner") if columns.get(name, "") is None}
        return {name: value for name, value in columns.items() if name not in absent}


class TagsRequest(RequestSchema):
    """POST and DELETE /keys/{kid}/tags."""

    tags = TagsField(required=True)


class TagsResponse(Schema):
    """All tags of a key, sorted."""

    kid = fields.String(required=True)
    tags = fields.List(fields.String(), required=True)


class GrantRequest(RequestSchema):
    """PUT /keys/{kid}/grants/{principal}."""

    operations = NamesField(required=True)

    @validates_schema
    def check(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse what cannot be granted, and nothing."""
        if not body["operations"] or not set(body["operations"]) <= set(GRANTABLE):
            known = ", ".join(GRANTABLE)
            fail(BadRequest(f"Field 'operations' must hold one or more of: {known}"), "operations")

    @post_load
    def make(self, body: dict[str, Any], **_kwargs: Any) -> list[Right]:
        """Return the operations, sorted and each once."""
        return [Right(name) for name in sorted(set(body["operations"]))]


class GrantResponse(Schema):
    """What a principal may do with a key."""

    kid = fields.String()
    principal = fields.String(required=True)
    operations = fields.List(fields.String(), required=True)
