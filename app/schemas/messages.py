"""Bodies of the operations (wire contract §1); the order of fields is the order of checks."""

from typing import Any

from marshmallow import fields, validates_schema

import hsm
from app.errors import BadRequest
from app.schemas.fields import (
    CONTENT_ENCRYPTION,
    KEY_MANAGEMENT,
    KEY_TRANSPORT,
    MAC,
    SIGNATURE,
    AlgorithmName,
    Base64Url,
    Base64UrlText,
    PartyInfo,
    ProtectedHeader,
    RequestSchema,
    ResponseSchema,
    Text,
    fail,
    refuse_together,
)


class EncryptRequest(RequestSchema):
    """POST /encrypt."""

    kid = Text(required=True)
    data = Base64Url(required=True)
    alg = AlgorithmName(KEY_MANAGEMENT, required=True)
    enc = AlgorithmName(CONTENT_ENCRYPTION, required=True)
    aad = Base64UrlText(load_default=None, allow_none=True)
    apu = PartyInfo(load_default=None, allow_none=True)
    apv = PartyInfo(load_default=None, allow_none=True)

    @validates_schema
    def check_party_info(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse what an algorithm would leave out of the header."""
        for name in ("apu", "apv"):
            is_used = body["alg"] in hsm.KEY_AGREEMENTS
            _require(is_used or body[name] is None, name, f"is not for alg '{body['alg']}'")

    @validates_schema(skip_on_field_errors=False)
    def check_together(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse what is not offered together."""
        if {"alg", "enc"} <= body.keys():
            refuse_together(body["alg"], body["enc"])


class EncryptResponse(ResponseSchema):
    """A flattened JWE (RFC 7516 §7.2.2)."""

    protected = fields.String()
    encrypted_key = Base64Url()
    iv = Base64Url()
    ciphertext = Base64Url()
    tag = Base64Url()
    aad = fields.String()


class DecryptRequest(RequestSchema):
    """POST /decrypt: a flattened JWE."""

    protected = ProtectedHeader(alg=KEY_MANAGEMENT, enc=CONTENT_ENCRYPTION)
    encrypted_key = Base64Url(load_default=None, allow_none=True)
    iv = Base64Url(required=True)
    ciphertext = Base64Url(required=True)
    tag = Base64Url(required=True)
    aad = Base64UrlText(load_default=None, allow_none=True)

    @validates_schema(skip_on_field_errors=False)
    def check_encrypted_key(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse one where none is transported, and none where one is (RFC 7516 §5.2)."""
        if not {"protected", "encrypted_key"} <= body.keys():
            return  # they have failures of their own
        alg = body["protected"].alg
        if alg in KEY_TRANSPORT.names:
            _require_encrypted_key(body)
        else:
            _require(not body["encrypted_key"], "encrypted_key", f"must be empty with alg '{alg}'")

    @validates_schema
    def check_lengths(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse an IV or a tag that ``enc`` does not have (RFC 7518 §5.2, §5.3)."""
        row = hsm.CONTENT_ENCRYPTIONS[body["protected"].enc]
        for name, length in (("iv", row.iv_bytes), ("tag", row.tag_bytes)):
            _require(len(body[name]) == length, name, f"must be {length} bytes long")


class DecryptResponse(ResponseSchema):
    """The plaintext, and the key that the header named."""

    kid = fields.String()
    data = Base64Url()


class UnwrapRequest(RequestSchema):
    """POST /keys/unwrap."""

    protected = ProtectedHeader(alg=KEY_TRANSPORT, enc=CONTENT_ENCRYPTION)
    encrypted_key = Base64Url(required=True)

    @validates_schema
    def check_lengths(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse an empty key."""
        _require_encrypted_key(body)


class SignRequest(RequestSchema):
    """POST /sign."""

    kid = Text(required=True)
    data = Base64UrlText(required=True)
    alg = AlgorithmName(SIGNATURE, required=True)


class SignResponse(ResponseSchema):
    """A detached JWS (RFC 7515 appendix F)."""

    protected = fields.String()
    signature = Base64Url()


class VerifyRequest(RequestSchema):
    """POST /verify: a detached JWS and its data."""

    protected = ProtectedHeader(alg=SIGNATURE)
    data = Base64UrlText(required=True)
    signature = Base64Url(required=True)


class MacRequest(RequestSchema):
    """POST /mac; with ``mac`` it is a verification."""

    kid = Text(required=True)
    data = Base64Url(required=True)
    mac = Base64Url(load_default=None, allow_none=True)
    alg = AlgorithmName(MAC, required=True)


class MacResponse(ResponseSchema):
    """A computed MAC."""

    kid = fields.String()
    mac = Base64Url()


class ValidResponse(ResponseSchema):
    """The answer to a verification."""

    kid = fields.String()
    valid = fields.Boolean()


def _require_encrypted_key(body: dict[str, Any]) -> None:
    _require(bool(body["encrypted_key"]), "encrypted_key", "is required and must not be empty")


def _require(is_right: bool, name: str, text: str) -> None:
    if not is_right:
        fail(BadRequest(f"Field '{name}' {text}"), name)
