"""Bodies of the operations (wire contract §1); the order of fields is the order of checks."""

from typing import Any, Final

from marshmallow import fields, post_load, validates_schema

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
    Choice,
    PartyInfo,
    ProtectedHeader,
    Text,
    fail,
    refuse_together,
    require_bytes,
)
from app.schemas.public_jwk import PublicJwkField
from app.schemas.schema import RequestSchema, ResponseSchema

FLATTENED: Final = "flattened"
COMPACT: Final = "compact"
JWS_PARTS: Final = ("protected", "data", "signature")
JWE_PARTS: Final = ("protected", "encrypted_key", "iv", "ciphertext", "tag")


def _serialization() -> Choice:
    return Choice(FLATTENED, COMPACT, load_default=FLATTENED, allow_none=True)


class EncryptRequest(RequestSchema):
    """POST /encrypt."""

    kid = Text(required=True)
    data = Base64Url(required=True)
    alg = AlgorithmName(KEY_MANAGEMENT, required=True)
    enc = AlgorithmName(CONTENT_ENCRYPTION, required=True)
    aad = Base64UrlText(load_default=None, allow_none=True)
    apu = PartyInfo(load_default=None, allow_none=True)
    apv = PartyInfo(load_default=None, allow_none=True)
    serialization = _serialization()
    typ = Text(allow_none=True)
    cty = Text(allow_none=True)

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

    @validates_schema
    def check_serialization(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse AAD where there is no place for it."""
        is_compact = body["serialization"] == COMPACT
        _require(
            not is_compact or body["aad"] is None,
            "aad",
            "does not go into the Compact Serialization (RFC 7516 §7.1)",
        )

    @post_load
    def gather(self, body: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """See ``_with_media_types``."""
        return _with_media_types(body)


class EncryptResponse(ResponseSchema):
    """A flattened JWE (RFC 7516 §7.2.2)."""

    protected = fields.String(required=True)
    encrypted_key = Base64Url(required=True)
    iv = Base64Url(required=True)
    ciphertext = Base64Url(required=True)
    tag = Base64Url(required=True)
    aad = fields.String()


class DecryptRequest(RequestSchema):
    """POST /decrypt: a flattened JWE, or a compact one."""

    protected = ProtectedHeader("kid", alg=KEY_MANAGEMENT, enc=CONTENT_ENCRYPTION)
    encrypted_key = Base64Url(load_default=None, allow_none=True)
    iv = Base64Url(required=True)
    ciphertext = Base64Url(required=True)
    tag = Base64Url(required=True)
    aad = Base64UrlText(load_default=None, allow_none=True)
    kid = Text(load_default=None, allow_none=True)

    def expand_compact(self, members: dict[str, Any]) -> dict[str, Any]:
        """See ``RequestSchema``."""
        return _taken_apart(members, "jwe", JWE_PARTS, "aad")

    @validates_schema(skip_on_field_errors=False)
    def check_encrypted_key(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse one where none is transported, and none where one is (RFC 7516 §5.2)."""
        if not {"protected", "encrypted_key"} <= body.keys():
            return  # they have failures of their own
        alg = body["protected"].alg
        if alg in KEY_TRANSPORT.names:
            require_encrypted_key(body)
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

    kid = fields.String(required=True)
    data = Base64Url(required=True)


class SignRequest(RequestSchema):
    """POST /sign."""

    kid = Text(required=True)
    data = Base64UrlText(required=True)
    alg = AlgorithmName(SIGNATURE, required=True)
    serialization = _serialization()
    typ = Text(allow_none=True)
    cty = Text(allow_none=True)

    @post_load
    def gather(self, body: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """See ``_with_media_types``."""
        return _with_media_types(body)


class SignResponse(ResponseSchema):
    """A detached JWS (RFC 7515 appendix F)."""

    protected = fields.String(required=True)
    signature = Base64Url(required=True)


class VerifyRequest(RequestSchema):
    """POST /verify: a detached JWS and its data, a flattened one, or a compact one."""

    protected = ProtectedHeader("kid", "jwk", alg=SIGNATURE)
    data = Base64UrlText(required=True)
    signature = Base64Url(required=True)
    kid = Text(load_default=None, allow_none=True)
    jwk = PublicJwkField(load_default=None, allow_none=True)

    def expand_compact(self, members: dict[str, Any]) -> dict[str, Any]:
        """See ``RequestSchema``."""
        members = _taken_apart(members, "jws", JWS_PARTS, "payload")
        _refuse_beside(members, "data", "payload")
        _refuse_beside(members, "kid", "jwk")
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


def _with_media_types(body: dict[str, Any]) -> dict[str, Any]:
    """Gather ``typ`` and ``cty``, in the order of the header (RFC 7515 §4.1.9, §4.1.10)."""
    given = {name: body.pop(name) for name in ("typ", "cty") if name in body}
    body["media_types"] = {name: text for name, text in given.items() if text is not None}
    return body


def _taken_apart(
    members: dict[str, Any], name: str, parts: tuple[str, ...], *others: str
) -> dict[str, Any]:
    """Return what the compact message ``name`` stands for, if there is one; nothing beside it."""
    text = members.get(name)
    if text is None:
        return members
    for other in (*parts, *others):
        _refuse_beside(members, name, other)
    if not isinstance(text, str):
        raise BadRequest(f"Field '{name}' must be a string")
    pieces = text.split(".")
    if len(pieces) != len(parts):
        raise BadRequest(f"Field '{name}' must have {len(parts)} parts (Compact Serialization)")
    for piece in pieces:
        require_bytes(piece, name)
    rest = {other: members[other] for other in members if other != name}
    return rest | dict(zip(parts, pieces, strict=True))


def _refuse_beside(members: dict[str, Any], name: str, other: str) -> None:
    if members.get(name) is not None and members.get(other) is not None:
        raise BadRequest(f"Field '{other}' does not go with '{name}'")


def require_encrypted_key(body: dict[str, Any]) -> None:
    """Refuse a body without an encrypted key, or with an empty one."""
    _require(bool(body["encrypted_key"]), "encrypted_key", "is required and must not be empty")


def _require(is_right: bool, name: str, text: str) -> None:
    if not is_right:
        fail(BadRequest(f"Field '{name}' {text}"), name)
