"""Bodies and queries of managing keys: lists, changes, tags, grants."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from marshmallow import Schema, fields, post_load, validates_schema

from app.errors import BadRequest
from app.instants import LAST, is_to_come
from app.jose import encoding
from app.kid import is_kid
from app.rights import GRANTABLE, Right
from app.schemas.fields import Text, fail
from app.schemas.key_members import KeyMembers
from app.schemas.schema import RequestSchema

STATES: Final = ("active", "deactivated", "compromised")
MOST_KEYS: Final = 200
DEFAULT_KEYS: Final = 50
LONGEST: Final = 255
MOST_TAGS: Final = 100
_INSTANT: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


class Name(Text):
    """A text that people read: short, and without control characters."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> str:
        text = self._text(value)
        if not text or len(text) > LONGEST or not text.isprintable():
            fail(BadRequest(f"Field '{attr}' must be 1 to {LONGEST} printable characters"))
        return text


class State(Text):
    """A state that callers may ask for."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> str:
        text = self._text(value)
        if text not in STATES:
            fail(BadRequest(f"Field '{attr}' must be one of: {', '.join(STATES)}"))
        return text


class Instant(Text):
    """A point in time to come (RFC 3339 §5.6)."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> datetime:
        instant = _instant(self._text(value))
        if instant is None:
            fail(BadRequest(f"Field '{attr}' must be like 2030-01-31T12:00:00Z (RFC 3339)"))
        if not is_to_come(instant):
            fail(BadRequest(f"Field '{attr}' must be between now and {LAST:%Y-%m-%dT%H:%M:%SZ}"))
        return instant

    def _serialize(self, value: Any, *_args: Any, **_kwargs: Any) -> str | None:
        return None if value is None else value.isoformat().replace("+00:00", "Z")


class Owner(Text):
    """Whose keys are asked for."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> str:
        text = self._text(value)
        if "\0" in text:
            fail(BadRequest(f"Field '{attr}' must be the name of a principal, like token:ci"))
        return text


def _instant(text: str) -> datetime | None:
    try:
        if _INSTANT.fullmatch(text):
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    return None


class ListQuery(RequestSchema):
    """GET /keys."""

    kty = Name()
    alg = Name()
    state = State()
    tag = Name()
    owner = Owner()
    limit = Text(load_default=str(DEFAULT_KEYS))
    after = Text()

    @post_load
    def make(self, query: dict[str, Any], **_kwargs: Any) -> Mapping[str, Any]:
        """Return the filters."""
        filters = query | {"limit": _limit(query["limit"])}
        return filters | {"after": _kid_of(query["after"])} if "after" in query else filters


class JwksQuery(RequestSchema):
    """GET /.well-known/jwks.json."""

    owner = Owner()
    tag = Name()


def _limit(text: str) -> int:
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
    owner = fields.String(required=True)
    tags = fields.List(fields.String(), required=True)
    created = Instant(required=True)
    activated = Instant(required=True, allow_none=True)
    deactivated = Instant(required=True, allow_none=True)
    expires = Instant(required=True, allow_none=True)
    origin = fields.String(required=True)
    residency = fields.String(required=True)
    jwk = fields.Dict()


class ListResponse(Schema):
    """A page of keys; ``after`` is null on the last one."""

    keys = fields.List(fields.Nested(DescriptionResponse), required=True)
    after = fields.Function(lambda page: cursor_of(page.after), required=True)


class ChangeRequest(RequestSchema):
    """PATCH /keys/{kid}: only what is given changes; null takes ``expires`` or ``name`` away."""

    state = State(allow_none=True)
    expires = Instant(allow_none=True)
    name = Name(allow_none=True)
    owner = Text(allow_none=True)

    @post_load
    def make(self, body: dict[str, Any], **_kwargs: Any) -> Mapping[str, Any]:
        """Return the columns to set."""
        columns = {"expires_at" if name == "expires" else name: body[name] for name in body}
        absent = {name for name in ("state", "owner") if columns.get(name, "") is None}
        return {name: value for name, value in columns.items() if name not in absent}


class NamesField(fields.Field[Any]):
    """An array of strings."""

    default_error_messages = {  # noqa: RUF012  # the name and type are marshmallow's
        "required": "is required",
        "null": "is required",
        "invalid": "must be an array of strings",
    }

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> list[str]:
        if not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            raise self.make_error("invalid")
        return value


class TagsRequest(RequestSchema):
    """POST and DELETE /keys/{kid}/tags."""

    tags = NamesField(required=True)

    @validates_schema
    def check(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse names that are ours or nobody's."""
        if len(body["tags"]) > MOST_TAGS:
            fail(BadRequest(f"Field 'tags' must hold at most {MOST_TAGS} tags"), "tags")
        for tag in body["tags"]:
            if not tag or tag.startswith("_") or len(tag) > LONGEST or not tag.isprintable():
                fail(
                    BadRequest(
                        f"Field 'tags' must hold tags of 1 to {LONGEST} printable characters "
                        "that do not begin with '_'"
                    ),
                    "tags",
                )


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
