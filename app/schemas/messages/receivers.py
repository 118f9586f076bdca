"""Those that a JWE is made for in General JSON Serialization (RFC 7516 §7.2.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from marshmallow import post_load, validates_schema

import hsm
from app.schemas.fields import (
    KEY_TRANSPORT,
    AlgorithmName,
    PartyInfo,
    Text,
    require,
    require_one,
)
from app.schemas.messages.named import with_keyset
from app.schemas.messages.several import SeveralField
from app.schemas.public_jwk import RECIPIENT, PublicJwk, PublicJwkField
from app.schemas.schema import RequestSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Which key is to open it, ours of that ``kid`` or the ``jwk`` brought along, and how."""

    kid: str | None
    jwk: PublicJwk | None
    alg: str
    apu: str | None
    apv: str | None


class ReceiverRequest(RequestSchema):
    """One recipient; that both sides agree on the CEK is not for several (RFC 7516 §7.2.1)."""

    kid = Text(load_default=None, allow_none=True)
    jwk = PublicJwkField(RECIPIENT, load_default=None, allow_none=True)
    alg = AlgorithmName(KEY_TRANSPORT, required=True)
    apu = PartyInfo(load_default=None, allow_none=True)
    apv = PartyInfo(load_default=None, allow_none=True)

    @validates_schema
    def check_one(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse both kinds of key, and neither."""
        require_one(body, "kid", "jwk")

    @validates_schema
    def check_fit(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse a key brought along that is not for the algorithm."""
        if body["jwk"] is not None:
            body["jwk"].require_fit(body["alg"])
            body["jwk"].require_offered(body["alg"])

    @validates_schema
    def check_party_info(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse what an algorithm would leave out of the header."""
        for name in ("apu", "apv"):
            is_used = body["alg"] in hsm.KEY_AGREEMENTS
            require(is_used or body[name] is None, name, f"is not for alg '{body['alg']}'")

    @post_load
    def make(self, body: dict[str, Any], **_kwargs: Any) -> Receiver:
        """Return the recipient."""
        return Receiver(**body)


_RECEIVER: Final = ReceiverRequest()


class ReceiversField(SeveralField):
    """The recipients, in the order in which the message has them."""

    def _read(self, one: Mapping[str, Any], _data: Mapping[str, Any]) -> Any:
        return _RECEIVER.load(with_keyset(dict(one)))
