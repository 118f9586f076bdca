"""Bodies of key sets (wire contract §15)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

from marshmallow import Schema, fields, post_load

from app.duration import read_duration
from app.errors import BadRequest
from app.schemas.catalogue import DEFAULT_KEYS, limit_of
from app.schemas.fields import JsonObject, Text, fail, require
from app.schemas.keys import CreateKeyRequest, KeyRequest
from app.schemas.labels import Alias, Duration, Instant, InstantToCome
from app.schemas.schema import Foreign, RequestSchema, ResponseSchema

DURATIONS: Final = ("every", "publish_ahead", "retain")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySetRequest:
    """What the keys of a set are, and when they follow one another; ``tags`` if any are given."""

    key: KeyRequest
    policy: Mapping[str, timedelta] | None
    tags: Sequence[str] | None


class RotationField(JsonObject):
    """An object of durations: when versions follow one another."""

    def _deserialize(
        self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any
    ) -> dict[str, timedelta]:
        rotation = self._object(value)
        return {name: _duration(rotation.get(name), f"{attr}.{name}") for name in DURATIONS}


def _duration(text: Any, name: str) -> timedelta:
    require(isinstance(text, str), name, "is required, and a string")
    try:
        return read_duration(text)
    except ValueError as error:
        fail(BadRequest(f"Field '{name}' {error}"))


_MATERIAL: Final = ("k", "n", "e", "d", "p", "q", "dp", "dq", "qi", "x", "y", "pub", "priv")
_OF_IMPORTS: Final = (*_MATERIAL, "wrapped")
_OF_ONE_KEY: Final = ("name", "alias", "expires")
_OF_THE_TOKEN: Final = ("storage", "count")


class PutKeySetRequest(CreateKeyRequest):
    """PUT /keysets/{name}: a key as it is generated, and when others follow it."""

    class Meta(RequestSchema.Meta):
        """A set makes its keys itself, and is called by its own name."""

        exclude = (*_OF_IMPORTS, *_OF_ONE_KEY, *_OF_THE_TOKEN, "use", "key_ops")

    foreign = MappingProxyType(
        {
            **CreateKeyRequest.foreign,
            **dict.fromkeys(_OF_IMPORTS, Foreign("a key set makes its keys itself")),
            **dict.fromkeys(_OF_ONE_KEY, Foreign("it is of one key, and not of a key set")),
            **dict.fromkeys(_OF_THE_TOKEN, Foreign("the token keeps the keys of a set")),
        }
    )

    rotation = RotationField(load_default=None, allow_none=True)

    @post_load
    def make(self, body: dict[str, Any], **kwargs: Any) -> Any:
        """Return the request; raise ``BadRequest`` for what does not go together."""
        request = super().make(dict.fromkeys(self.Meta.exclude) | body, **kwargs)
        return KeySetRequest(key=request, policy=body["rotation"], tags=body["tags"])


class RotateRequest(RequestSchema):
    """POST /keysets/{name}/rotate."""

    at = InstantToCome(load_default=None, allow_none=True)


class RevokeRequest(RequestSchema):
    """POST /keysets/{name}/revoke."""

    kid = Text(required=True)


class KeySetsQuery(RequestSchema):
    """GET /keysets."""

    limit = Text(load_default=str(DEFAULT_KEYS))
    after = Alias(load_default="")

    @post_load
    def make(self, query: dict[str, Any], **_kwargs: Any) -> Mapping[str, Any]:
        """Return the page that is asked for."""
        return query | {"limit": limit_of(query["limit"])}


class VersionResponse(Schema):
    """One key of a set."""

    kid = fields.String(required=True)
    version = fields.Integer(required=True)
    state = fields.String(required=True)
    created = Instant(required=True)
    published = Instant(required=True, allow_none=True)
    current = Instant(required=True, allow_none=True)
    retires = Instant(required=True, allow_none=True)


class KeySetResponse(ResponseSchema):
    """A key set with its versions."""

    name = fields.String(required=True)
    kty = fields.String(required=True)
    alg = fields.String()
    crv = fields.String()
    bits = fields.Integer()
    digest = fields.Boolean()
    destroy_after = Duration()
    owner = fields.String(required=True)
    tags = fields.List(fields.String(), required=True)
    published = fields.Boolean(required=True)
    rotation = fields.Dict(required=True, allow_none=True)
    current = fields.String(required=True)
    next = fields.String(required=True, allow_none=True)
    rotates = Instant(required=True, allow_none=True)
    created = Instant(required=True)
    versions = fields.List(fields.Nested(VersionResponse), required=True)


class KeySetsResponse(Schema):
    """A page of key sets; ``after`` is null on the last one."""

    keysets = fields.List(fields.Nested(KeySetResponse), required=True)
    after = fields.String(required=True, allow_none=True)
