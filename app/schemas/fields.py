"""Fields that check as the wire contract demands."""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, NoReturn

from marshmallow import ValidationError, fields

import hsm
from app.errors import BadRequest
from app.jose import encoding

Offers = Mapping[str, hsm.Offer]
"""What this token offers, by name, as far as it is known."""

OFFERS: Final[ContextVar[Offers]] = ContextVar("offers", default={})  # noqa: B039  # read only
"""Those of the token that the body being loaded is for."""

SHOWN: Final = 40
PARTY_INFO_BYTES_MAX: Final = 512


def fail(error: Exception, name: str | None = None) -> NoReturn:
    """Refuse the content of a field with ``error``; outside of the field, ``name`` says which."""
    raise ValidationError([error], name or "_schema")


def require(is_right: bool, name: str | None, text: str) -> None:
    """Refuse the member ``name``, which ``text`` says how to mend, unless it is right."""
    if not is_right:
        fail(BadRequest(f"Field '{name}' {text}"), name)


def require_one(body: Mapping[str, Any], usual: str, other: str) -> None:
    """Refuse both of two members of which one has to be there, and neither."""
    is_usual, is_other = body[usual] is not None, body[other] is not None
    require(not (is_usual and is_other), other, f"does not go with '{usual}'")
    require(is_usual or is_other, usual, f"is required, or '{other}'")


def refusal(name: str, crv: str | None = None) -> str | None:
    """Return why this token does not offer the algorithm; ``None`` if it does or may."""
    offers = OFFERS.get()
    return offers[name].refusal(crv) if name in offers else None


def refuse_together(alg: str, enc: str, name: str = "enc") -> None:
    """Refuse what this token offers by itself and not together, in the member ``name``."""
    offers = OFFERS.get()
    reason = offers[alg].with_enc(enc).reason if alg in offers else None
    if reason is not None:
        fail(hsm.UnsupportedAlgorithm.not_offered(f"{alg} with {enc}", reason), name)


def require_bytes(text: str, name: str | None) -> bytes:
    """Return the bytes of base64url ``text``; raise ``BadRequest`` with the name of its member."""
    try:
        return encoding.decode(text)
    except ValueError:
        raise BadRequest(f"Field '{name}' is not valid base64url") from None


class Member(fields.Field[Any]):
    """A member of a body, with what is said of one that is missing."""

    default_error_messages = {  # noqa: RUF012  # the name and type are marshmallow's
        "required": "is required",
        "null": "is required",
    }


class JsonObject(Member):
    """A JSON object."""

    default_error_messages = {"invalid": "must be an object"}  # noqa: RUF012  # as above

    def _object(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        return value


class Text(Member):
    """A JSON string."""

    default_error_messages = {"invalid": "must be a string"}  # noqa: RUF012  # as above

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> Any:
        return self._text(value)

    def _text(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        return value


class Choice(Text):
    """One of a few words."""

    def __init__(self, *choices: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choices = choices

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> str:
        text = self._text(value)
        if text not in self.choices:
            fail(BadRequest(f"Field '{attr}' must be one of: {', '.join(self.choices)}"))
        return text


class WholeNumber(Member):
    """A JSON number without fraction; no boolean, no text."""

    default_error_messages = {"invalid": "must be an integer"}  # noqa: RUF012  # as above

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> int:
        if type(value) is not int:
            raise self.make_error("invalid")
        return value


class KeyOperations(Member):
    """What a key is for (RFC 7517 §4.3): texts, of which no two are the same."""

    default_error_messages = {"invalid": "must be an array of different strings"}  # noqa: RUF012  # as above

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> frozenset[str]:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.make_error("invalid")
        operations = frozenset(value)
        if len(operations) < len(value):
            raise self.make_error("invalid")
        return operations


class Flag(Member):
    """True or false."""

    default_error_messages = {"invalid": "must be true or false"}  # noqa: RUF012  # as above

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value


class Base64Url(Text):
    """Bytes as base64url without padding (RFC 7515 §2)."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> Any:
        return self._decode(self._text(value), attr)

    @staticmethod
    def _decode(text: str, attr: str | None) -> bytes:
        try:
            return require_bytes(text, attr)
        except BadRequest as error:
            return fail(error)


class Base64UrlText(Base64Url):
    """Valid base64url, left as it is: it goes into what is signed or authenticated."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> str:
        text = self._text(value)
        self._decode(text, attr)
        return text


class Payload(Base64UrlText):
    """What a JWS is over: base64url, unless its header says otherwise, which is checked with it."""

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> str:
        return self._text(value)


class PartyInfo(Base64UrlText):
    """What a party to a key agreement is known by (RFC 7518 §4.6.1.2, §4.6.1.3)."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> str:
        text = self._text(value)
        require_short(self._decode(text, attr), f"Field '{attr}'")
        return text


def require_short(party_info: bytes, subject: str) -> None:
    """Refuse what is longer than any party is called; ``subject`` says what that is."""
    if len(party_info) > PARTY_INFO_BYTES_MAX:
        fail(BadRequest(f"{subject} must be at most {PARTY_INFO_BYTES_MAX} bytes long"))


class AlgorithmClass(NamedTuple):
    """The algorithms of one kind of operation."""

    title: str
    names: frozenset[str]

    def check(self, name: str, kind: str, member: str | None) -> str:
        """Return ``name``; refuse it if it is not of the class, or this token lacks it.

        ``kind`` says what sort of member ``member`` is.
        """
        if name not in self.names:
            text = f"{kind} '{member}': '{name[:SHOWN]}' is not a {self.title} algorithm"
            fail(hsm.UnsupportedAlgorithm(text))
        reason = refusal(name)
        if reason is not None:
            fail(hsm.UnsupportedAlgorithm.not_offered(name, reason))
        return name


SIGNATURE: Final = AlgorithmClass("signature", frozenset(hsm.SIGNATURES))
SIGNED: Final = AlgorithmClass("signature", frozenset(hsm.SIGNATURES) | frozenset(hsm.MACS))
"""What makes a JWS (RFC 7518 §3.1)."""
MAC: Final = AlgorithmClass("MAC", frozenset(hsm.MACS))
CONTENT_ENCRYPTION: Final = AlgorithmClass("content encryption", frozenset(hsm.CONTENT_ENCRYPTIONS))
KEY_TRANSPORT: Final = AlgorithmClass(
    "key transport", frozenset(name for name, row in hsm.KEY_MANAGEMENTS.items() if row.transports)
)
KEY_MANAGEMENT: Final = AlgorithmClass(
    "key management", frozenset(hsm.KEY_MANAGEMENTS) | {hsm.DIRECT}
)


class AlgorithmName(Text):
    """The name of an algorithm of one class."""

    def __init__(self, algorithms: AlgorithmClass, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.algorithms = algorithms

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> str:
        return self.algorithms.check(self._text(value), "Field", attr)
