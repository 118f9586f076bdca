"""What callers write on keys: a name, an alias, tags, and how long they are to be there."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from app.duration import read_duration
from app.errors import BadRequest
from app.instants import LAST, is_to_come
from app.kid import ALIAS_FORM, is_alias
from app.schemas.fields import Member, Text, fail

LONGEST: Final = 255
MOST_TAGS: Final = 100
_INSTANT: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What a new key is to have of them."""

    name: str | None = None
    alias: str | None = None
    tags: Sequence[str] = ()
    expires_at: datetime | None = None
    destroy_after: timedelta | None = None


class Name(Text):
    """A text that people read: short, and without control characters."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> str:
        text = self._text(value)
        if not text or len(text) > LONGEST or not text.isprintable():
            fail(BadRequest(f"Field '{attr}' must be 1 to {LONGEST} printable characters"))
        return text


class Alias(Text):
    """What a key is called beside its kids, by programs."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> str:
        return self._alias(self._text(value), attr)

    @staticmethod
    def _alias(text: str, attr: str | None) -> str:
        if not is_alias(text):
            fail(BadRequest(f"Field '{attr}' must be {ALIAS_FORM}"))
        return text


class AliasOfNew(Alias):
    """The same of a new key; ``true`` is the ``kid`` of a JWK, which has one of ``material``."""

    default_error_messages = {"invalid": "must be a string or true"}  # noqa: RUF012  # as below

    def __init__(self, *material: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.material = material

    def _deserialize(
        self, value: Any, attr: str | None, data: Any, *_args: Any, **_kwargs: Any
    ) -> str:
        if value is not True:
            return self._alias(self._text(value), attr)
        if all(data.get(name) is None for name in self.material):
            fail(BadRequest(f"Field '{attr}' may be true only for a JWK to import"))
        if not isinstance(data.get("kid"), str):
            fail(BadRequest(f"Field 'kid' must be a string if '{attr}' is true"))
        return self._alias(data["kid"], "kid")


class Instant(Text):
    """A point in time (RFC 3339 §5.6)."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> datetime:
        instant = _instant(self._text(value))
        if instant is None:
            fail(BadRequest(f"Field '{attr}' must be like 2030-01-31T12:00:00Z (RFC 3339)"))
        return instant

    def _serialize(self, value: Any, *_args: Any, **_kwargs: Any) -> str | None:
        return None if value is None else value.isoformat().replace("+00:00", "Z")


class InstantToCome(Instant):
    """One that is to come, when the request is read."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> datetime:
        instant = super()._deserialize(value, attr)
        try:
            require_to_come(instant, attr)
        except BadRequest as error:
            fail(error)
        return instant


def require_to_come(instant: datetime, name: str | None) -> None:
    """Raise ``BadRequest`` if the member ``name`` is over, or further off than is taken."""
    if not is_to_come(instant):
        raise BadRequest(f"Field '{name}' must be between now and {LAST:%Y-%m-%dT%H:%M:%SZ}")


class Day(Text):
    """A day by UTC (RFC 3339 §5.6, full-date)."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> date:
        text = self._text(value)
        try:
            day = date.fromisoformat(text)
        except ValueError:
            day = date.min
        if day.isoformat() != text or day > LAST.date():
            fail(BadRequest(f"Field '{attr}' must be a day like 2030-01-31"))
        return day

    def _serialize(self, value: Any, *_args: Any, **_kwargs: Any) -> str | None:
        return None if value is None else value.isoformat()


class Duration(Text):
    """A time of a certain length (ISO 8601)."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> timedelta:
        try:
            return read_duration(self._text(value))
        except ValueError as error:
            fail(BadRequest(f"Field '{attr}' {error}"))


def _instant(text: str) -> datetime | None:
    try:
        if _INSTANT.fullmatch(text):
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    return None


class NamesField(Member):
    """An array of strings."""

    default_error_messages = {"invalid": "must be an array of strings"}  # noqa: RUF012  # marshmallow's name

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> list[str]:
        if not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            raise self.make_error("invalid")
        return value


class TagsField(NamesField):
    """Tags that callers may give: not too many, and none of ours."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> list[str]:
        tags = super()._deserialize(value)
        if len(tags) > MOST_TAGS:
            fail(BadRequest(f"Field '{attr}' must hold at most {MOST_TAGS} tags"))
        for tag in tags:
            if not tag or tag.startswith("_") or len(tag) > LONGEST or not tag.isprintable():
                fail(
                    BadRequest(
                        f"Field '{attr}' must hold tags of 1 to {LONGEST} printable characters "
                        "that do not begin with '_'"
                    )
                )
        return tags
