"""Bodies of encryption (wire contract §1); the order of fields is the order of checks."""

from typing import Any, Final

from marshmallow import fields, validates_schema

import hsm
from app.schemas.fields import (
    CONTENT_ENCRYPTION,
    KEY_MANAGEMENT,
    KEY_TRANSPORT,
    AlgorithmName,
    Base64Url,
    Base64UrlText,
    Choice,
    PartyInfo,
    Text,
    refuse_together,
    require,
)
from app.schemas.messages.addressed import RecipientsField
from app.schemas.messages.caller_header import WRITTEN_IN_JWE, AddedHeader, HeadedRequest
from app.schemas.messages.extensions import refuse_extensions
from app.schemas.messages.header_parts import with_parts
from app.schemas.messages.named import NamingRequest
from app.schemas.messages.received_header import ProtectedHeader
from app.schemas.messages.receivers import ReceiversField
from app.schemas.messages.serializations import (
    COMPACT,
    GENERAL,
    JWE_OTHERS,
    JWE_PARTS,
    refuse_beside,
    serialization,
    taken_apart,
)
from app.schemas.public_jwk import RECIPIENT, PublicJwkField
from app.schemas.schema import RequestSchema, ResponseSchema


class EncryptRequest(HeadedRequest, NamingRequest):
    """POST /encrypt, for a key of the service."""

    kid = Text(required=True)
    data = Base64Url(required=True)
    alg = AlgorithmName(KEY_MANAGEMENT, required=True)
    enc = AlgorithmName(CONTENT_ENCRYPTION, required=True)
    aad = Base64UrlText(load_default=None, allow_none=True)
    apu = PartyInfo(load_default=None, allow_none=True)
    apv = PartyInfo(load_default=None, allow_none=True)
    serialization = serialization()
    typ = Text(allow_none=True)
    cty = Text(allow_none=True)
    header = AddedHeader(WRITTEN_IN_JWE, refuse_extensions)

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Check a request for either kind of recipient, or for several."""
        is_general = data.get("serialization") == GENERAL
        if (data.get("recipients") is not None or is_general) and type(self) is EncryptRequest:
            return _FOR_SEVERAL.load(data, **kwargs)
        if data.get("jwk") is not None and type(self) is EncryptRequest:
            refuse_beside(data, "kid", "jwk")
            return _FOR_JWK.load(data, **kwargs)
        return super().load(data, **kwargs)

    @validates_schema
    def check_party_info(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse what an algorithm would leave out of the header."""
        for name in ("apu", "apv"):
            is_used = body["alg"] in hsm.KEY_AGREEMENTS
            require(is_used or body[name] is None, name, f"is not for alg '{body['alg']}'")

    @validates_schema(skip_on_field_errors=False)
    def check_together(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse what is not offered together."""
        if {"alg", "enc"} <= body.keys():
            refuse_together(body["alg"], body["enc"])

    @validates_schema
    def check_serialization(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse AAD where there is no place for it."""
        is_compact = body["serialization"] == COMPACT
        require(
            not is_compact or body["aad"] is None,
            "aad",
            "does not go into the Compact Serialization (RFC 7516 §7.1)",
        )


class JwkEncryptRequest(EncryptRequest):
    """POST /encrypt, for a public key that the caller brings along."""

    class Meta(RequestSchema.Meta):
        """The key itself is there in place of its name."""

        exclude = ("kid",)

    jwk = PublicJwkField(RECIPIENT, required=True)

    @validates_schema
    def check_fit(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse a key that is not for the algorithm, or on a curve that is not offered for it."""
        body["jwk"].require_fit(body["alg"])
        body["jwk"].require_offered(body["alg"])


_FOR_JWK: Final = JwkEncryptRequest()


class GeneralEncryptRequest(HeadedRequest):
    """POST /encrypt, for several recipients (RFC 7516 §7.2.1), who share the protected header."""

    recipients = ReceiversField(required=True)
    data = Base64Url(required=True)
    enc = AlgorithmName(CONTENT_ENCRYPTION, required=True)
    aad = Base64UrlText(load_default=None, allow_none=True)
    serialization = Choice(GENERAL, required=True)
    typ = Text(allow_none=True)
    cty = Text(allow_none=True)
    header = AddedHeader(WRITTEN_IN_JWE, refuse_extensions)

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Refuse what each recipient says."""
        for name in ("kid", "jwk", "alg", "apu", "apv"):
            refuse_beside(data, "recipients", name)
        return super().load(data, **kwargs)

    @validates_schema
    def check_together(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse what is not offered together."""
        for one in body["recipients"]:
            refuse_together(one.alg, body["enc"])


_FOR_SEVERAL: Final = GeneralEncryptRequest()


class EncryptResponse(ResponseSchema):
    """A flattened JWE (RFC 7516 §7.2.2)."""

    protected = fields.String(required=True)
    encrypted_key = Base64Url(required=True)
    iv = Base64Url(required=True)
    ciphertext = Base64Url(required=True)
    tag = Base64Url(required=True)
    aad = fields.String()


class RecipientResponse(ResponseSchema):
    """How one of several recipients gets the content encryption key."""

    header = fields.Dict(required=True)
    encrypted_key = Base64Url(required=True)


class GeneralEncryptResponse(ResponseSchema):
    """A JWE of several recipients."""

    protected = fields.String(required=True)
    recipients = fields.List(fields.Dict(), required=True)
    aad = fields.String()
    iv = Base64Url(required=True)
    ciphertext = Base64Url(required=True)
    tag = Base64Url(required=True)


class DecryptRequest(RequestSchema):
    """POST /decrypt: a flattened JWE (RFC 7516 §7.2.2), or a compact one."""

    protected = ProtectedHeader("kid", alg=KEY_MANAGEMENT, enc=CONTENT_ENCRYPTION)
    encrypted_key = Base64Url(load_default=None, allow_none=True)
    iv = Base64Url(required=True)
    ciphertext = Base64Url(required=True)
    tag = Base64Url(required=True)
    aad = Base64UrlText(load_default=None, allow_none=True)
    kid = Text(load_default=None, allow_none=True)

    def expand_compact(self, members: dict[str, Any]) -> dict[str, Any]:
        """See ``RequestSchema``."""
        return jwe_members(members)

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Check a JWE in whichever form it is."""
        if data.get("recipients") is not None:
            return _GENERAL_JWE.load(data, **kwargs)
        return super().load(data, **kwargs)

    @validates_schema(skip_on_field_errors=False)
    def check_encrypted_key(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse one where none is transported, and none where one is (RFC 7516 §5.2)."""
        if not {"protected", "encrypted_key"} <= body.keys():
            return  # they have failures of their own
        alg = body["protected"].alg
        if alg in KEY_TRANSPORT.names:
            require_encrypted_key(body)
        else:
            require(not body["encrypted_key"], "encrypted_key", f"must be empty with alg '{alg}'")

    @validates_schema
    def check_lengths(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse an IV or a tag that ``enc`` does not have (RFC 7518 §5.2, §5.3)."""
        _require_lengths(body, body["protected"].enc)


class GeneralDecryptRequest(RequestSchema):
    """The same for a JWE of several recipients (RFC 7516 §7.2.1)."""

    recipients = RecipientsField(ProtectedHeader(alg=KEY_MANAGEMENT, enc=CONTENT_ENCRYPTION))
    iv = Base64Url(required=True)
    ciphertext = Base64Url(required=True)
    tag = Base64Url(required=True)
    aad = Base64UrlText(load_default=None, allow_none=True)
    kid = Text(load_default=None, allow_none=True)

    @validates_schema
    def check_lengths(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse what no ``enc`` has, and more than one of it (RFC 7516 §7.2.1)."""
        encs = {one.header.enc for one in body["recipients"] if one.header}
        require(len(encs) <= 1, "recipients", "must have the same 'enc'")
        for enc in encs:
            _require_lengths(body, enc)


_GENERAL_JWE: Final = GeneralDecryptRequest()


def _require_lengths(body: dict[str, Any], enc: str) -> None:
    row = hsm.CONTENT_ENCRYPTIONS[enc]
    for name, length in (("iv", row.iv_bytes), ("tag", row.tag_bytes)):
        require(len(body[name]) == length, name, f"must be {length} bytes long")


class DecryptResponse(ResponseSchema):
    """The plaintext, and the key that the header named."""

    kid = fields.String(required=True)
    data = Base64Url(required=True)


def jwe_members(members: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a JWE in whichever form it is."""
    members = taken_apart(members, "jwe", JWE_PARTS, *JWE_OTHERS)
    if members.get("recipients") is None:
        return with_parts(members, "unprotected", "header")
    for name in ("encrypted_key", "header"):
        refuse_beside(members, "recipients", name)
    return members


def require_encrypted_key(body: dict[str, Any]) -> None:
    """Refuse a body without an encrypted key, or with an empty one."""
    require(bool(body["encrypted_key"]), "encrypted_key", "is required and must not be empty")
