"""Bodies of signatures and MACs (wire contract §1); the order of fields is that of checks."""

from types import MappingProxyType
from typing import Any, Final

from marshmallow import fields, post_load, validates_schema

from app.errors import BadRequest
from app.jose import encoding
from app.schemas.fields import (
    MAC,
    SIGNATURE,
    SIGNED,
    AlgorithmName,
    Base64Url,
    Base64UrlText,
    Choice,
    Payload,
    Text,
    fail,
    require,
    require_bytes,
)
from app.schemas.messages.addressed import SignaturesField
from app.schemas.messages.caller_header import (
    WRITTEN_IN_JWS,
    AddedHeader,
    HeadedRequest,
    WholeHeader,
    read_strictly,
)
from app.schemas.messages.header_parts import with_parts
from app.schemas.messages.named import NamingRequest
from app.schemas.messages.received_header import SignedHeader
from app.schemas.messages.serializations import (
    COMPACT,
    GENERAL,
    JWS_OTHERS,
    JWS_PARTS,
    refuse_beside,
    serialization,
    taken_apart,
)
from app.schemas.messages.signers import SignersField
from app.schemas.public_jwk import SIGNER, PublicJwkField
from app.schemas.schema import Foreign, RequestSchema, ResponseSchema

_NO_DIGEST: Final = "what is signed is 'data' itself, never a digest that the caller made"
_OF_DIGESTS: Final = MappingProxyType(
    {
        "message_type": Foreign(reason=_NO_DIGEST, usual="RAW"),
        "prehashed": Foreign(reason=_NO_DIGEST, usual=False),
    }
)


class SignRequest(HeadedRequest, NamingRequest):
    """POST /sign, with a header of ours, to which the caller may add."""

    foreign = _OF_DIGESTS

    kid = Text(required=True)
    data = Base64UrlText(required=True)
    alg = AlgorithmName(SIGNATURE, required=True)
    serialization = serialization()
    typ = Text(allow_none=True)
    cty = Text(allow_none=True)
    header = AddedHeader(WRITTEN_IN_JWS, read_strictly)

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Check a request with either kind of header, or for several signers."""
        if type(self) is not SignRequest:
            return super().load(data, **kwargs)
        if data.get("signers") is not None or data.get("serialization") == GENERAL:
            return _FOR_SIGNERS.load(data, **kwargs)
        if data.get("protected") is not None:
            return _WHOLE_HEADER.load(data, **kwargs)
        return super().load(data, **kwargs)


class ProtectedSignRequest(RequestSchema):
    """POST /sign, with a header that the caller has written, which says ``alg``."""

    kid = Text(required=True)
    data = Base64UrlText(required=True)
    alg = AlgorithmName(SIGNATURE, load_default=None, allow_none=True)
    serialization = serialization()
    protected = WholeHeader(required=True)

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Refuse what goes into a header of ours only."""
        for name in ("header", "typ", "cty"):
            refuse_beside(data, "protected", name)
        return super().load(data, **kwargs)

    @post_load
    def gather(self, body: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """Return the body as that of ``SignRequest`` is."""
        header = body.pop("protected")
        return body | {"alg": body["alg"] or header.members["alg"], "header": header}


_WHOLE_HEADER: Final = ProtectedSignRequest()


class GeneralSignRequest(SignRequest):
    """POST /sign, by several keys (RFC 7515 §7.2.1); each header has what the caller adds."""

    class Meta(RequestSchema.Meta):
        """Each signer says these."""

        exclude = ("kid", "alg")

    signers = SignersField(required=True)
    serialization = Choice(GENERAL, required=True)

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Refuse what only one signer can have."""
        for name in ("kid", "alg", "protected"):
            refuse_beside(data, "signers", name)
        return super().load(data, **kwargs)


_FOR_SIGNERS: Final = GeneralSignRequest()


class SignResponse(ResponseSchema):
    """A detached JWS (RFC 7515 appendix F)."""

    protected = fields.String(required=True)
    signature = Base64Url(required=True)


class GeneralSignResponse(ResponseSchema):
    """A JWS of several signatures; its payload is not in it where that is not encoded."""

    payload = fields.String()
    signatures = fields.List(fields.Dict(), required=True)


class VerifyRequest(RequestSchema):
    """POST /verify: a detached JWS and its data, a flattened one, or a compact one."""

    foreign = _OF_DIGESTS

    protected = SignedHeader("kid", "jwk", alg=SIGNED)
    data = Base64UrlText(required=True)
    signature = Base64Url(required=True)
    kid = Text(load_default=None, allow_none=True)
    jwk = PublicJwkField(SIGNER, load_default=None, allow_none=True)

    def expand_compact(self, members: dict[str, Any]) -> dict[str, Any]:
        """See ``RequestSchema``."""
        data = members.get("data") if _is_detached(members.get("jws")) else None
        if data is None:
            members = taken_apart(members, "jws", JWS_PARTS, *JWS_OTHERS)
        else:
            attached = {**members, "data": None}
            members = taken_apart(attached, "jws", JWS_PARTS, *JWS_OTHERS) | {"data": data}
        refuse_beside(members, "data", "payload")
        refuse_beside(members, "kid", "jwk")
        if members.get("signatures") is None:
            return with_parts(members, "header")
        for name in ("signature", "protected", "header", "jwk"):
            refuse_beside(members, "signatures", name)
        return members

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Check a JWS in whichever form it is."""
        if data.get("signatures") is not None:
            is_detached = data.get("payload") is None
            return (_GENERAL_DETACHED_JWS if is_detached else _GENERAL_JWS).load(data, **kwargs)
        if data.get("payload") is not None and type(self) is VerifyRequest:
            return _FLATTENED_JWS.load(data, **kwargs)
        return super().load(data, **kwargs)

    @validates_schema
    def check_fit(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse a key that is not for the algorithm of the header."""
        if body["jwk"] is not None:
            body["jwk"].require_fit(body["protected"].alg)


class FlattenedVerifyRequest(VerifyRequest):
    """The same for the flattened JWS (RFC 7515 §7.2.2), where the data is called the payload."""

    data = Payload(required=True, data_key="payload")

    @validates_schema(skip_on_field_errors=False)
    def check_payload(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse a payload that is not encoded, unless the header says so (RFC 7797 §5.2)."""
        if {"protected", "data"} <= body.keys() and body["protected"].is_encoded:
            _require_encoded(body["data"])

    @post_load
    def encode(self, body: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """Return the body as that of the other forms is."""
        if not body["protected"].is_encoded:
            body["data"] = encoding.encode(body["data"].encode())
        return body


_FLATTENED_JWS: Final = FlattenedVerifyRequest()


class GeneralVerifyRequest(RequestSchema):
    """The same for a JWS of several signatures (RFC 7515 §7.2.1)."""

    signatures = SignaturesField(SignedHeader(alg=SIGNED))
    data = Base64UrlText(required=True, data_key="payload")
    kid = Text(load_default=None, allow_none=True)

    @validates_schema
    def check_payload(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse a payload that is not encoded: it can be beside the message (RFC 7797 §3)."""
        headers = [one.header for one in body["signatures"] if one.header]
        require(all(one.is_encoded for one in headers), "payload", "must be encoded; send 'data'")


class GeneralDetachedVerifyRequest(RequestSchema):
    """The same for a JWS of several signatures whose payload is beside it."""

    signatures = SignaturesField(SignedHeader(alg=SIGNED))
    data = Base64UrlText(required=True)
    kid = Text(load_default=None, allow_none=True)


_GENERAL_JWS: Final = GeneralVerifyRequest()
_GENERAL_DETACHED_JWS: Final = GeneralDetachedVerifyRequest()


def _is_detached(jws: Any) -> bool:
    return isinstance(jws, str) and ".." in jws


def _require_encoded(payload: str) -> None:
    try:
        require_bytes(payload, "payload")
    except BadRequest as error:
        fail(error, "payload")


class MacRequest(NamingRequest):
    """POST /mac; with ``mac`` it is a verification."""

    kid = Text(required=True)
    data = Base64Url(required=True)
    mac = Base64Url(load_default=None, allow_none=True)
    alg = AlgorithmName(MAC, required=True)

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Check a request for a MAC alone, or for a whole JWS."""
        if data.get("serialization") is None:
            return super().load(data, **kwargs)
        refuse_beside(data, "serialization", "mac")
        return _WITH_MAC.load(data, **kwargs)


class CompactMacRequest(HeadedRequest):
    """POST /mac, for a compact JWS whose signature is the MAC (RFC 7515 §7.1)."""

    kid = Text(required=True)
    data = Base64UrlText(required=True)
    alg = AlgorithmName(MAC, required=True)
    serialization = Choice(COMPACT, required=True)
    typ = Text(allow_none=True)
    cty = Text(allow_none=True)
    header = AddedHeader(WRITTEN_IN_JWS, read_strictly)


_WITH_MAC: Final = CompactMacRequest()


class MacResponse(ResponseSchema):
    """A computed MAC."""

    kid = fields.String(required=True)
    mac = Base64Url(required=True)


class GeneralValidResponse(ResponseSchema):
    """The answer to a verification of several signatures."""

    kid = fields.String(required=True, allow_none=True)
    valid = fields.Boolean(required=True)
    signatures = fields.List(fields.Dict(), required=True)


class ValidResponse(ResponseSchema):
    """The answer to a verification."""

    kid = fields.String()
    valid = fields.Boolean(required=True)
