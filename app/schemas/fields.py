"""Fields that check as the wire contract demands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NoReturn

from marshmallow import ValidationError, fields
from marshmallow.experimental.context import Context

import hsm
from app.errors import BadRequest
from app.jose import encoding, strict_json
from app.jwk import epk

Offers = Mapping[str, hsm.Offer]
"""What this token offers, by name, as far as it is known; the context of every ``load``."""

SHOWN: Final = 40
PARTY_INFO_BYTES_MAX: Final = 512
_NO_AGREEMENT: Final = hsm.Agreement()


def fail(error: Exception, name: str | None = None) -> NoReturn:
    """Refuse the content of a field with ``error``; outside of the field, ``name`` says which."""
    raise ValidationError([error], name or "_schema")


def refusal(name: str, crv: str | None = None) -> str | None:
    """Return why this token does not offer the algorithm; ``None`` if it does or may."""
    offers: Offers = Context.get({})
    return offers[name].refusal(crv) if name in offers else None


def refuse_together(alg: str, enc: str) -> None:
    """Refuse what this token offers by itself and not together."""
    offers: Offers = Context.get({})
    reason = offers[alg].with_enc(enc).reason if alg in offers else None
    if reason is not None:
        fail(hsm.UnsupportedAlgorithm.not_offered(f"{alg} with {enc}", reason), "enc")


def require_bytes(text: str, name: str | None) -> bytes:
    """Return the bytes of base64url ``text``; raise ``BadRequest`` with the name of its member."""
    try:
        return encoding.decode(text)
    except ValueError:
        raise BadRequest(f"Field '{name}' is not valid base64url") from None


class Text(fields.Field[Any]):
    """A JSON string."""

    default_error_messages = {  # noqa: RUF012  # the name and type are marshmallow's
        "required": "is required",
        "null": "is required",
        "invalid": "must be a string",
    }

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


class WholeNumber(fields.Field[Any]):
    """A JSON number without fraction; no boolean, no text."""

    default_error_messages = {"invalid": "must be an integer"}  # noqa: RUF012  # as above

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> int:
        if type(value) is not int:
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

    def _serialize(self, value: Any, *_args: Any, **_kwargs: Any) -> str | None:
        return None if value is None else encoding.encode(value)


class Base64UrlText(Base64Url):
    """Valid base64url, left as it is: it goes into what is signed or authenticated."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> str:
        text = self._text(value)
        self._decode(text, attr)
        return text


class PartyInfo(Base64UrlText):
    """What a party to a key agreement is known by (RFC 7518 §4.6.1.2, §4.6.1.3)."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> str:
        text = self._text(value)
        _require_short(self._decode(text, attr), f"Field '{attr}'")
        return text


def _require_short(party_info: bytes, subject: str) -> None:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A protected header: what we use of it, and ``protected`` as it was received.

    ``kid`` is the one beside it, if there is one; then ``own_kid`` has to name the same key.
    """

    protected: str
    kid: str
    alg: str
    own_kid: str | None = None
    enc: str = ""
    agreement: hsm.Agreement = _NO_AGREEMENT


class ProtectedHeader(Base64Url):
    """A protected header of JWS or JWE (RFC 7515 §4, RFC 7516 §4).

    Members that we do not know are ignored, as demanded there, but for those that change what
    the others mean. None of them ever makes us fetch, inflate or derive. A header without ``kid``
    needs one of the members ``beside`` it, which name the key instead.
    """

    def __init__(self, *beside: str, **algorithms: AlgorithmClass) -> None:
        super().__init__(required=True)
        self.beside = beside
        self.algorithms = algorithms

    def _deserialize(
        self, value: Any, attr: str | None, data: Any, *_args: Any, **_kwargs: Any
    ) -> Header:
        protected = self._text(value)
        try:
            header = strict_json.loads(self._decode(protected, attr))
        except ValueError:
            fail(BadRequest(f"Field '{attr}' is not a JSON object"))
        _refuse_extensions(header)
        beside = [data[name] for name in self.beside if data.get(name) is not None]
        own_kid = _member(header, "kid") if "kid" in header or not beside else None
        kid = next(iter(beside), own_kid)
        used = {name: _member(header, name) for name in self.algorithms}
        for name, algorithms in self.algorithms.items():
            algorithms.check(used[name], "Header member", name)
        if "enc" in used:
            refuse_together(used["alg"], used["enc"])
        return Header(
            protected=protected,
            kid=kid if isinstance(kid, str) else "",  # a key itself is there, or no name at all
            own_kid=own_kid,
            agreement=_agreement(header),
            **used,
        )


def _refuse_extensions(header: Mapping[str, Any]) -> None:
    if "crit" in header:
        fail(BadRequest("Header member 'crit' is not supported: no extension is"))
    if "zip" in header:
        fail(BadRequest("Header member 'zip' is not supported"))
    if header.get("b64", True) is not True:
        fail(BadRequest("Header member 'b64' must be true (RFC 7797 is not supported)"))


def _agreement(header: Mapping[str, Any]) -> hsm.Agreement:
    """Return what ECDH-ES needs; to other algorithms these are members like any unknown one."""
    if header["alg"] not in hsm.KEY_AGREEMENTS:
        return _NO_AGREEMENT
    if "epk" not in header:
        fail(BadRequest("Header member 'epk' is required"))
    try:
        ephemeral = epk.read(header["epk"])
    except ValueError:
        fail(BadRequest("Header member 'epk' is not a public key for ECDH-ES"))
    return hsm.Agreement(ephemeral, _party_info(header, "apu"), _party_info(header, "apv"))


def _party_info(header: Mapping[str, Any], name: str) -> bytes:
    if name not in header:
        return b""
    try:
        octets = encoding.decode(_member(header, name))
    except ValueError:
        fail(BadRequest(f"Header member '{name}' is not valid base64url"))
    _require_short(octets, f"Header member '{name}'")
    return octets


def _member(header: Mapping[str, Any], name: str) -> str:
    if name not in header:
        fail(BadRequest(f"Header member '{name}' is required"))
    if not isinstance(header[name], str):
        fail(BadRequest(f"Header member '{name}' must be a string"))
    return str(header[name])
