"""Headers that callers write: whole ones, or members for ours (wire contract §10)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from marshmallow import post_load, validates_schema

from app import compact_json
from app.errors import BadRequest
from app.jose import strict_json
from app.schemas.fields import SIGNATURE, Base64Url, JsonObject, fail, require
from app.schemas.messages.extensions import is_payload_encoded
from app.schemas.messages.received_header import member_of
from app.schemas.schema import RequestSchema

ReadExtensions = Callable[[Mapping[str, Any]], bool]
"""Refuses extensions that are not known; tells whether the payload is encoded."""

HEADER_BYTES_MAX: Final = 8192

WRITTEN_IN_JWS: Final = frozenset({"alg"})
WRITTEN_IN_JWE: Final = frozenset({"alg", "enc", "kid", "epk", "apu", "apv", "iv", "tag"})
"""Members that are ours to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerHeader:
    """What a caller has written, checked as far as that can be done without its key.

    ``protected`` is a whole header as it was received; without it ``members`` are for ours, and
    those that are true name what is known of the key. See ``Header`` for ``is_encoded``.
    """

    members: Mapping[str, Any]
    protected: str | None = None
    is_encoded: bool = True


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_chain(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


_TYPES: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = MappingProxyType(
    {
        **dict.fromkeys(("kid", "typ", "cty", "jku", "x5u", "x5t"), (_is_text, "a string")),
        "x5t#S256": (_is_text, "a string"),
        "jwk": (_is_object, "an object"),
        "x5c": (_is_chain, "an array of strings"),
    }
)
"""Members of RFC 7515 §4.1, and what they are."""

_MEDIA_TYPES: Final = ("typ", "cty")
"""Of a message and of its content (RFC 7515 §4.1.9, §4.1.10)."""

_NOTHING: Final[frozenset[str]] = frozenset()
_FILLED_IN: Final = frozenset({"jwk", "x5c", "x5t#S256"})


def _check(
    members: Mapping[str, Any], read_extensions: ReadExtensions, requests: frozenset[str] = _NOTHING
) -> bool:
    """Refuse what no header may hold; tell whether the payload is encoded.

    ``requests`` are the members that say what is to be filled in, and are not of their type yet.
    """
    is_encoded = read_extensions(members)
    for name, (is_right, kind) in _TYPES.items():
        if name in members and name not in requests and not is_right(members[name]):
            fail(BadRequest(f"Header member '{name}' must be {kind}"))
    return is_encoded


def read_strictly(members: Mapping[str, Any]) -> bool:
    """Return what ``is_payload_encoded`` does; refuse ``b64`` without ``crit`` whatever it says."""
    if "b64" in members and "crit" not in members:
        fail(BadRequest("Header member 'crit' must name 'b64' (RFC 7797 §6)"))
    return is_payload_encoded(members)


class AddedHeader(JsonObject):
    """Members for a header of ours; it must not hold those that are ``written`` by us.

    With ``kid`` null it has none, and each of ``_FILLED_IN`` that is true is filled in.
    """

    def __init__(self, written: frozenset[str], read_extensions: ReadExtensions) -> None:
        super().__init__(load_default=None, allow_none=True)
        self.written = written
        self._read_extensions = read_extensions

    def _deserialize(
        self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any
    ) -> CallerHeader:
        members = self._object(value)
        for name in members:
            if name in self.written:
                fail(BadRequest(f"Field '{attr}' must not hold '{name}', which is written for it"))
        _require_small(compact_json.dumps(members), attr)
        requests = frozenset(name for name in members if _is_request(name, members[name]))
        is_encoded = _check(members, self._read_extensions, requests)
        return CallerHeader(members=members, is_encoded=is_encoded)


class HeadedRequest(RequestSchema):
    """A body whose ``typ``, ``cty`` and ``header`` are for a header of ours."""

    @validates_schema
    def check_header(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse a member of the header that is there twice."""
        header: CallerHeader | None = body.get("header")
        members = header.members if header else ()
        for name in _MEDIA_TYPES:
            is_twice = body.get(name) is not None and name in members
            require(not is_twice, name, "is in the header, too")

    @post_load
    def gather(self, body: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """Return the body with its media types together, in the order of the header."""
        given = {name: body.pop(name, None) for name in _MEDIA_TYPES}
        body["media_types"] = {name: text for name, text in given.items() if text is not None}
        return body


class WholeHeader(Base64Url):
    """A whole protected header of a JWS, which is signed as it is."""

    def _deserialize(
        self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any
    ) -> CallerHeader:
        text = self._text(value)
        octets = self._decode(text, attr)
        _require_small(octets, attr)
        try:
            members = strict_json.loads(octets)
        except ValueError:
            fail(BadRequest(f"Field '{attr}' is not a JSON object"))
        is_encoded = _check(members, read_strictly)
        SIGNATURE.check(member_of(members, "alg"), "Header member", "alg")
        return CallerHeader(members=members, protected=text, is_encoded=is_encoded)


def _require_small(encoded: str | bytes, attr: str | None) -> None:
    if len(encoded) > HEADER_BYTES_MAX:
        fail(BadRequest(f"Field '{attr}' must be a header of at most {HEADER_BYTES_MAX} bytes"))


def _is_request(name: str, value: Any) -> bool:
    return value is None if name == "kid" else value is True and name in _FILLED_IN
