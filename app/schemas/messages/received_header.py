"""The header of a message that comes in (RFC 7515 §4, RFC 7516 §4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import hsm
from app.errors import BadRequest
from app.jose import encoding
from app.jwk import epk
from app.schemas.fields import (
    SIGNATURE,
    AlgorithmClass,
    Base64Url,
    fail,
    refuse_together,
    require_short,
)
from app.schemas.messages.extensions import is_payload_encoded, refuse_extensions
from app.schemas.messages.header_parts import HeaderParts, read_parts

_NO_AGREEMENT: Final = hsm.Agreement()
_WITH_JWK: Final[Mapping[str, AlgorithmClass]] = MappingProxyType({"alg": SIGNATURE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header: what we use of it, and its part that is ``protected`` as it was received.

    ``kid`` is the one beside it, if there is one, and ``own_kid`` its own.
    ``is_encoded`` says that a signature is over the data in base64url (RFC 7797 §3).
    """

    protected: str
    kid: str
    alg: str
    own_kid: str | None = None
    enc: str = ""
    agreement: hsm.Agreement = _NO_AGREEMENT
    is_encoded: bool = True

    @property
    def kids(self) -> frozenset[str]:
        """All that may name a key of ours."""
        return frozenset({self.kid, self.own_kid or self.kid})


class ProtectedHeader(Base64Url):
    """The header of a JWS or JWE (RFC 7515 §4, RFC 7516 §4), with parts that are not protected.

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
        protected, header = read_parts(
            value if isinstance(value, HeaderParts) else self._text(value), attr
        )
        beside = [data[name] for name in self.beside if data.get(name) is not None]
        return self.received(protected, header, data, beside)

    def received(
        self,
        protected: str,
        header: Mapping[str, Any],
        data: Mapping[str, Any],
        beside: Sequence[Any],
    ) -> Header:
        """Return what we use of the members of a header that is part of ``data``.

        ``beside`` is what names the key in place of it, if anything does.
        """
        is_encoded = self._read_extensions(header, data)
        own_kid = member_of(header, "kid") if "kid" in header or not beside else None
        kid = next(iter(beside), own_kid)
        used = {name: member_of(header, name) for name in self.algorithms}
        for name, algorithms in self._algorithms_for(data).items():
            algorithms.check(used[name], "Header member", name)
        if "enc" in used:
            refuse_together(used["alg"], used["enc"])
        return Header(
            protected=protected,
            kid=kid if isinstance(kid, str) else "",  # a key itself is there, or no name at all
            own_kid=own_kid,
            agreement=_agreement(header),
            is_encoded=is_encoded,
            **used,
        )

    def _algorithms_for(self, _data: Mapping[str, Any]) -> Mapping[str, AlgorithmClass]:
        return self.algorithms

    def _read_extensions(self, header: Mapping[str, Any], _data: Mapping[str, Any]) -> bool:
        return refuse_extensions(header)


class SignedHeader(ProtectedHeader):
    """That of a JWS, which may have the extension of RFC 7797, and no MAC beside a public key."""

    def _algorithms_for(self, data: Mapping[str, Any]) -> Mapping[str, AlgorithmClass]:
        return self.algorithms if data.get("jwk") is None else _WITH_JWK

    def _read_extensions(self, header: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
        is_encoded = is_payload_encoded(header)
        if not is_encoded and ".." not in (data.get("jws") or ".."):
            fail(BadRequest("Field 'jws' must be detached, as 'b64' is false (RFC 7797 §5.2)"))
        return is_encoded


def _agreement(header: Mapping[str, Any]) -> hsm.Agreement:
    """Return what ``alg`` needs; to other algorithms these are members like any unknown one."""
    if header["alg"] in hsm.GCM_KEY_WRAPPINGS:
        content = hsm.GCM_KEY_WRAPPINGS[header["alg"]].content
        iv = _octets(header, "iv", content.iv_bytes)
        return hsm.Agreement(iv=iv, tag=_octets(header, "tag", content.tag_bytes))
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
    octets = _decoded(header, name)
    require_short(octets, f"Header member '{name}'")
    return octets


def _octets(header: Mapping[str, Any], name: str, length: int) -> bytes:
    octets = _decoded(header, name)
    if len(octets) != length:
        fail(BadRequest(f"Header member '{name}' must be {length} bytes long"))
    return octets


def _decoded(header: Mapping[str, Any], name: str) -> bytes:
    try:
        return encoding.decode(member_of(header, name))
    except ValueError:
        fail(BadRequest(f"Header member '{name}' is not valid base64url"))


def member_of(header: Mapping[str, Any], name: str) -> str:
    """Return a member that has to be there, a string."""
    if name not in header:
        fail(BadRequest(f"Header member '{name}' is required"))
    if not isinstance(header[name], str):
        fail(BadRequest(f"Header member '{name}' must be a string"))
    return str(header[name])
