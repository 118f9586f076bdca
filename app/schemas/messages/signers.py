"""The signers of a JWS in General JSON Serialization (RFC 7515 §7.2.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from marshmallow import post_load

from app.schemas.fields import SIGNATURE, AlgorithmName, Text
from app.schemas.messages.named import with_keyset
from app.schemas.messages.several import SeveralField
from app.schemas.schema import RequestSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Which key is to sign, and with which algorithm."""

    kid: str
    alg: str


class SignerRequest(RequestSchema):
    """One signer."""

    kid = Text(required=True)
    alg = AlgorithmName(SIGNATURE, required=True)

    @post_load
    def make(self, body: dict[str, Any], **_kwargs: Any) -> Signer:
        """Return the signer."""
        return Signer(**body)


_SIGNER: Final = SignerRequest()


class SignersField(SeveralField):
    """The signers, in the order of their signatures."""

    def _read(self, one: Mapping[str, Any], _data: Mapping[str, Any]) -> Any:
        return _SIGNER.load(with_keyset(dict(one)))
