"""The recipients of a JWE, or the signatures of a JWS, in General JSON Serialization."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from marshmallow import ValidationError

from app.errors import BadRequest
from app.schemas.fields import KEY_TRANSPORT, SHOWN, fail, require_bytes
from app.schemas.messages.header_parts import HeaderParts, given, read_parts
from app.schemas.messages.received_header import Header, ProtectedHeader, member_of
from app.schemas.messages.several import SeveralField


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressed:
    """One of several: the ``kid`` of its header, and its encrypted key or signature.

    Without a ``header`` it can do nothing, for the reason of ``refusal``; others may be good.
    """

    kid: str | None
    header: Header | None
    refusal: Exception | None
    octets: bytes

    @property
    def usable_header(self) -> Header:
        """The header; raises ``refusal`` if there is none that can be used."""
        if self.header is None:
            raise self.refusal or KeyError("header")
        return self.header


def names_of(several: Iterable[Addressed], kid: str | None) -> frozenset[str]:
    """Return all that may name a key of ours: the kids of the headers, and the one beside."""
    return frozenset(filter(None, (kid, *(one.kid for one in several))))


class AddressedField(SeveralField):
    """An array of them."""

    octets: ClassVar[str]
    """The member that holds them."""

    def __init__(self, header: ProtectedHeader) -> None:
        super().__init__(required=True)
        self.header = header

    def _read(self, one: Mapping[str, Any], data: Mapping[str, Any]) -> Addressed:
        protected, members = read_parts(self._parts(one, data), "protected")
        kid = member_of(members, "kid") if "kid" in members else None
        octets = self._octets(one)
        try:
            header = self.header.received(protected, members, {}, [kid or ""])
            self._check(header, octets)
        except ValidationError as error:
            refusal = cast(Exception, error.messages[0])
            return Addressed(kid=kid, header=None, refusal=refusal, octets=octets)
        return Addressed(kid=kid, header=header, refusal=None, octets=octets)

    def _octets(self, one: Mapping[str, Any]) -> bytes:
        text = one.get(self.octets)
        if text is None:
            return self._absent()
        if not isinstance(text, str):
            raise BadRequest(f"Field '{self.octets}' must be a string")
        return require_bytes(text, self.octets)

    def _absent(self) -> bytes:
        raise BadRequest(f"Field '{self.octets}' is required")

    def _parts(self, one: Mapping[str, Any], data: Mapping[str, Any]) -> HeaderParts:
        raise NotImplementedError

    def _check(self, header: Header, octets: bytes) -> None:
        """Refuse octets that ``header`` does not go with."""


class SignaturesField(AddressedField):
    """The signatures of a JWS, each with a protected header of its own (RFC 7515 §7.2.1)."""

    octets = "signature"

    def _parts(self, one: Mapping[str, Any], _data: Mapping[str, Any]) -> HeaderParts:
        return HeaderParts(protected=one.get("protected"), others=given(one, ("header",)))


class RecipientsField(AddressedField):
    """The recipients of a JWE, which share all but a part of the header (RFC 7516 §7.2.1)."""

    octets = "encrypted_key"

    def _absent(self) -> bytes:
        return b""

    def _parts(self, one: Mapping[str, Any], data: Mapping[str, Any]) -> HeaderParts:
        others = given(data, ("unprotected",)) | given(one, ("header",))
        return HeaderParts(protected=data.get("protected"), others=others)

    def _check(self, header: Header, octets: bytes) -> None:
        if bool(octets) is not (header.alg in KEY_TRANSPORT.names):
            shown = header.alg[:SHOWN]
            fail(BadRequest(f"Field 'encrypted_key' does not go with alg '{shown}'"))
