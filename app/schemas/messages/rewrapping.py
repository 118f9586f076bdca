"""Bodies of rewrapping: a JWE, and the key that it is to be for."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from marshmallow import fields, post_load, validates_schema

from app.errors import BadRequest
from app.jose import encoding
from app.schemas.fields import (
    KEY_MANAGEMENT,
    KEY_TRANSPORT,
    AlgorithmName,
    JsonObject,
    Text,
    fail,
    refuse_together,
)
from app.schemas.messages.encryption import (
    DecryptRequest,
    EncryptResponse,
    GeneralDecryptRequest,
    jwe_members,
)
from app.schemas.messages.header_parts import HeaderParts, Members, given, names_in
from app.schemas.messages.named import with_keyset
from app.schemas.messages.serializations import JWE_OTHERS, JWE_PARTS, refuse_beside
from app.schemas.schema import RequestSchema, ResponseSchema
from hsm import HsmError

_OF_THE_CEK: Final = frozenset({"alg", "kid", "epk", "apu", "apv", "iv", "tag"})
"""Members that say how a recipient gets the CEK (RFC 7518 §4.6.1, §4.7.1)."""
_OF_THE_KEY: Final = _OF_THE_CEK | {"jwk", "x5u", "x5c", "x5t", "x5t#S256"}
"""Those, and what names the key of one recipient (RFC 7516 §4.1)."""
_LEFT_OUT: Final = _OF_THE_KEY | {"jku"}
"""What is not true of another key."""
_SHARED_PARTS: Final = ("protected", "unprotected", "aad", "iv", "ciphertext", "tag")
_OWN_PARTS: Final = ("header", "encrypted_key")
_ORDER: Final = (*_SHARED_PARTS[:2], *_OWN_PARTS, "recipients", *_SHARED_PARTS[2:])


def _without(members: Members, names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name not in names}


def _with_header(one: Members, members: Members) -> Members:
    """Return a recipient whose header has more ``members``."""
    return {**one, "header": {**members, **(one.get("header") or {})}} if members else one


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedJwe:
    """A JWE as it was received, of which one recipient is to be another.

    ``shared`` are the parts of the message, ``recipients`` those of each, in text; ``protected`` is
    what the protected header holds. ``sent_as`` is the member that was all of it, in either form.
    """

    shared: Members
    recipients: tuple[Members, ...]
    protected: Members
    is_general: bool
    sent_as: Any

    @classmethod
    def of(cls, members: Members) -> "ReceivedJwe":
        """Return the JWE of a checked body."""
        header = members.get("protected")
        protected = header.protected if isinstance(header, HeaderParts) else header
        several = members.get("recipients")
        return cls(
            shared=given({**members, "protected": protected}, _SHARED_PARTS),
            recipients=tuple(several or [given(members, _OWN_PARTS)]),
            protected=names_in(protected),
            is_general=several is not None,
            sent_as=members.get("jwe"),
        )

    def keeps_cek(self, old_alg: str, new_alg: str) -> bool:
        """Tell whether another key can get the CEK: nothing that changes is authenticated."""
        is_transported = {old_alg, new_alg} <= KEY_TRANSPORT.names
        return is_transported and self.protected.keys().isdisjoint(_OF_THE_KEY)

    def with_recipient(self, place: int, header: Members, encrypted_key: bytes) -> Members:
        """Return the message with another recipient in that place; all else stays as it is."""
        unprotected = self.shared.get("unprotected", {})
        shared = _without(unprotected, _OF_THE_KEY)
        moved = _without(unprotected, shared)  # what all have had in common is of each
        recipients = [_with_header(one, moved) for one in self.recipients]
        own = _without(self.recipients[place].get("header") or {}, _LEFT_OUT)
        new = {"header": {**header, **own}, "encrypted_key": encoding.encode(encrypted_key)}
        recipients[place] = {**recipients[place], **new}
        return self._answer({"unprotected": shared or None}, recipients)

    @property
    def kept_members(self) -> Members:
        """What the protected header of a new message for another key holds of this one's."""
        return _without(self.protected, _LEFT_OUT | {"enc"})

    def anew(self, jwe: Members) -> Members:
        """Return ``jwe``, a flattened one for the only recipient, in the form of this one."""
        rewritten = _LEFT_OUT | {"enc"}
        unprotected = _without(self.shared.get("unprotected", {}), rewritten)
        own = _without(self.recipients[0].get("header") or {}, rewritten)
        made = EncryptResponse().dump(jwe)
        one = given({**made, "header": own or None}, _OWN_PARTS)
        if self.is_general and not one["encrypted_key"]:
            del one["encrypted_key"]  # RFC 7516 §7.2.1
        shared = given(made, _SHARED_PARTS) | {"unprotected": unprotected or None}
        return self._answer(shared, [one])

    def _answer(self, changed: Members, recipients: list[Members]) -> Members:
        parts = given({**self.shared, **changed}, _SHARED_PARTS)
        if isinstance(self.sent_as, str):
            whole = {**parts, **recipients[0]}
            return {"jwe": encoding.compact(*(whole[name] for name in JWE_PARTS))}
        own = {"recipients": recipients} if self.is_general else recipients[0]
        jwe = given({**parts, **own}, _ORDER)
        return jwe if self.sent_as is None else {"jwe": jwe}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which key a message is to be for, and how."""

    kid: str
    alg: str


class TargetRequest(RequestSchema):
    """The key that a message is to be for."""

    kid = Text(required=True)
    alg = AlgorithmName(KEY_MANAGEMENT, required=True)

    @post_load
    def make(self, body: dict[str, Any], **_kwargs: Any) -> Target:
        """Return it."""
        return Target(**body)


_TARGET: Final = TargetRequest()


class TargetField(JsonObject):
    """An object that names a key, and an algorithm of it."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> Target:
        try:
            target: Target = _TARGET.load(with_keyset(self._object(value)))
        except BadRequest as error:
            fail(BadRequest(f"Field '{attr}': {error}"))
        except HsmError as error:
            fail(error)
        return target


class RewrapRequest(DecryptRequest):
    """POST /rewrap: all that /decrypt takes, or that as an object."""

    to = TargetField(required=True)

    def expand_compact(self, members: dict[str, Any]) -> dict[str, Any]:
        """See ``RequestSchema``."""
        jwe = members.get("jwe")
        if not isinstance(jwe, dict):
            return jwe_members(members)
        for name in (*JWE_PARTS, *JWE_OTHERS):
            refuse_beside(members, "jwe", name)
        parts = given(jwe, (*JWE_PARTS, *JWE_OTHERS))
        return jwe_members({**members, **parts, "jwe": None}) | {"jwe": jwe}

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Check a JWE in whichever form it is."""
        is_general = data.get("recipients") is not None
        schema = _GENERAL if is_general else self
        return RequestSchema.load(schema, data, **kwargs) | {"message": ReceivedJwe.of(data)}

    @validates_schema
    def check_together(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse what is not offered together."""
        refuse_together(body["to"].alg, body["protected"].enc, "to")


class GeneralRewrapRequest(GeneralDecryptRequest):
    """The same for a JWE of several recipients (RFC 7516 §7.2.1)."""

    to = TargetField(required=True)

    @validates_schema
    def check_together(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse what is not offered together."""
        for one in body["recipients"]:
            if one.header:
                refuse_together(body["to"].alg, one.header.enc, "to")


_GENERAL: Final = GeneralRewrapRequest()


class RewrapResponse(ResponseSchema):
    """A flattened JWE for another key, with the parts that the one for the old key has."""

    protected = fields.String()
    unprotected = fields.Dict()
    header = fields.Dict()
    encrypted_key = fields.String(required=True)
    aad = fields.String()
    iv = fields.String(required=True)
    ciphertext = fields.String(required=True)
    tag = fields.String(required=True)


class GeneralRewrapResponse(ResponseSchema):
    """The same for a JWE of several recipients, of which one has changed."""

    protected = fields.String()
    unprotected = fields.Dict()
    recipients = fields.List(fields.Dict(), required=True)
    aad = fields.String()
    iv = fields.String(required=True)
    ciphertext = fields.String(required=True)
    tag = fields.String(required=True)
