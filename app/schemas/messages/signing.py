"""Bodies of signatures and MACs (wire contract §1); the order of fields is that of checks."""

from types import MappingProxyType
from typing import Any, Final

from marshmallow import fields, post_load, validates_schema

import hsm
from app.schemas.fields import MAC, SIGNATURE, AlgorithmName, Base64Url, Base64UrlText, Text, fail
from app.schemas.messages.received_header import ProtectedHeader
from app.schemas.messages.serializations import (
    JWS_PARTS,
    refuse_beside,
    serialization,
    taken_apart,
    with_media_types,
)
from app.schemas.public_jwk import PublicJwkField
from app.schemas.schema import Foreign, RequestSchema, ResponseSchema

_NO_DIGEST: Final = "what is signed is 'data' itself, never a digest that the caller made"
_OF_DIGESTS: Final = MappingProxyType(
    {
        "message_type": Foreign(reason=_NO_DIGEST, usual="RAW"),
        "prehashed": Foreign(reason=_NO_DIGEST, usual=False),
    }
)


class SignRequest(RequestSchema):
    """POST /sign."""

    foreign = _OF_DIGESTS

    kid = Text(required=True)
    data = Base64UrlText(required=True)
    alg = AlgorithmName(SIGNATURE, required=True)
    serialization = serialization()
    typ = Text(allow_none=True)
    cty = Text(allow_none=True)

    @post_load
    def gather(self, body: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """See ``with_media_types``."""
        return with_media_types(body)


class SignResponse(ResponseSchema):
    """A detached JWS (RFC 7515 appendix F)."""

    protected = fields.String(required=True)
    signature = Base64Url(required=True)


class VerifyRequest(RequestSchema):
    """POST /verify: a detached JWS and its data, a flattened one, or a compact one."""

    foreign = _OF_DIGESTS

    protected = ProtectedHeader("kid", "jwk", alg=SIGNATURE)
    data = Base64UrlText(required=True)
    signature = Base64Url(required=True)
    kid = Text(load_default=None, allow_none=True)
    jwk = PublicJwkField(load_default=None, allow_none=True)

    def expand_compact(self, members: dict[str, Any]) -> dict[str, Any]:
        """See ``RequestSchema``."""
        members = taken_apart(members, "jws", JWS_PARTS, "payload")
        refuse_beside(members, "data", "payload")
        refuse_beside(members, "kid", "jwk")
        return members

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Check a JWS in whichever form it is."""
        if data.get("payload") is not None and type(self) is VerifyRequest:
            return _FLATTENED_JWS.load(data, **kwargs)
        return super().load(data, **kwargs)

    @validates_schema
    def check_fit(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse a key that is not for the algorithm of the header."""
        alg = body["protected"].alg
        if body["jwk"] is not None and not body["jwk"].permits(alg):
            fail(hsm.CryptoFailure(f"The key does not permit {alg}"), "jwk")


class FlattenedVerifyRequest(VerifyRequest):
    """The same for the flattened JWS (RFC 7515 §7.2.2), where the data is called the payload."""

    data = Base64UrlText(required=True, data_key="payload")


_FLATTENED_JWS: Final = FlattenedVerifyRequest()


class MacRequest(RequestSchema):
    """POST /mac; with ``mac`` it is a verification."""

    kid = Text(required=True)
    data = Base64Url(required=True)
    mac = Base64Url(load_default=None, allow_none=True)
    alg = AlgorithmName(MAC, required=True)


class MacResponse(ResponseSchema):
    """A computed MAC."""

    kid = fields.String(required=True)
    mac = Base64Url(required=True)


class ValidResponse(ResponseSchema):
    """The answer to a verification."""

    kid = fields.String()
    valid = fields.Boolean(required=True)
