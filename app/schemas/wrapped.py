"""Wrapped keys (wire contract §16): ours, and the form in which Azure's tools write them."""

from dataclasses import dataclass, field
from typing import Any, Final

from marshmallow import fields, post_load

from app.errors import BadRequest
from app.schemas.fields import Base64Url, Choice, JsonObject, Text, fail
from app.schemas.labels import Instant
from app.schemas.schema import RequestSchema, ResponseSchema

ENC: Final = "CKM_RSA_AES_KEY_WRAP"
"""How a key is wrapped (PKCS#11 v2.40 §2.1.21)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A key that was wrapped for the wrapping key ``kid``; ``alg`` is that of the AES key."""

    kid: str
    alg: str | None
    ciphertext: bytes = field(repr=False)


class WrappedRequest(RequestSchema):
    """A wrapped key."""

    kid = Text(required=True)
    alg = Text(required=True)
    enc = Choice(ENC, required=True)
    ciphertext = Base64Url(required=True)

    @post_load
    def make(self, body: dict[str, Any], **_kwargs: Any) -> WrappedKey:
        """Return it."""
        return WrappedKey(kid=body["kid"], alg=body["alg"], ciphertext=body["ciphertext"])


class ByokHeaderRequest(RequestSchema):
    """What Azure's file says of a wrapped key; its ``alg`` says that it is used directly."""

    kid = Text(required=True)
    alg = Choice("dir", required=True)
    enc = Choice(ENC, required=True)


class ByokHeader(JsonObject):
    """The header of the file, checked."""

    def _deserialize(
        self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any
    ) -> dict[str, Any]:
        try:
            header: dict[str, Any] = _HEADER.load(self._object(value))
        except BadRequest as error:
            fail(error)
        return header


class ByokRequest(RequestSchema):
    """Azure's `.byok`, taken as it is."""

    schema_version = Choice("1.0.0", required=True)
    header = ByokHeader(required=True)
    ciphertext = Base64Url(required=True)

    @post_load
    def make(self, body: dict[str, Any], **_kwargs: Any) -> WrappedKey:
        """Return the wrapped key."""
        return WrappedKey(kid=body["header"]["kid"], alg=None, ciphertext=body["ciphertext"])


_HEADER: Final = ByokHeaderRequest()
_WRAPPED: Final = WrappedRequest()
_BYOK: Final = ByokRequest()


class WrappedField(JsonObject):
    """A wrapped key in either form."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> WrappedKey:
        members = self._object(value)
        try:
            wrapped: WrappedKey = (_BYOK if "header" in members else _WRAPPED).load(members)
        except BadRequest as error:
            fail(BadRequest(f"Field '{attr}': {error}"))
        return wrapped


class WrappingKeyRequest(RequestSchema):
    """POST /wrapping-keys: nothing has to be said."""


class WrappingKeyResponse(ResponseSchema):
    """A key to wrap for, until ``expires``."""

    kid = fields.UUID(required=True)
    alg = fields.String(required=True)
    jwk = fields.Dict(required=True)
    expires = Instant(required=True)
