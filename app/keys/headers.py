"""Headers that callers write, bound to a key: none may name another than the one that is used."""

import hashlib
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import hsm
from app.jose import encoding
from app.jose.jwe_header import JweHeader
from app.jwk import PRIVATE_MEMBERS, load_public
from app.keys.description import thumbprint
from app.registry import Key
from app.schemas.messages.caller_header import CallerHeader
from hsm import CryptoFailure

Members = Mapping[str, Any]
IsOwn = Callable[[Members, "Identity"], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a header may say of a key: ``names``, and the public members of its JWK, if any.

    ``certificates`` looks its certificates up, in base64 and its own first; many keys have none.
    """

    names: frozenset[str]
    jwk: Mapping[str, str] | None
    certificates: Callable[[], Sequence[str]] = tuple


def head_of(  # noqa: PLR0913  # the members of the request
    key: Key,
    alg: str,
    enc: str,
    *,
    aad: str | None,
    apu: str | None,
    apv: str | None,
    media_types: Mapping[str, str],
) -> JweHeader:
    """Return the header of a JWE that names ``key``."""
    return JweHeader(
        names={"alg": alg, "enc": enc, "kid": key.private_name},
        party_info={"apu": apu, "apv": apv},
        others=media_types,
        aad=aad,
    )


def protected_by(header: CallerHeader, identity: Identity, **ours: Any) -> str:
    """Return the protected header that a caller has written, or added to ``ours``, in that order.

    Raises ``CryptoFailure`` if it names another key, or another ``alg``.
    """
    if header.protected is None:
        whole = {**ours, **members_for(identity, header)}
        left_out = {"kid"} if whole["kid"] is None else set()
        return encoding.protected_header(
            **{name: whole[name] for name in whole if name not in left_out}
        )
    if header.members["alg"] != ours["alg"]:
        raise CryptoFailure("Header member 'alg' is not that of the request")
    require_own(header.members, identity)
    return header.protected


def members_for(identity: Identity, header: CallerHeader) -> Members:
    """Return the members that a caller has written, with what is known of the key filled in.

    Raises ``CryptoFailure`` if one names another key, or asks for what is not known.
    """
    asked = {name for name in _KNOWN if header.members.get(name) is True}
    given = {name: member for name, member in header.members.items() if name not in asked}
    require_own(given, identity)
    return {**header.members, **{name: _KNOWN[name](identity) for name in asked}}


def signing_input_of(protected: str, data: str, header: CallerHeader | None) -> bytes:
    """Return what is signed of ``data``, which the caller's header may want as it is."""
    is_encoded = header is None or header.is_encoded
    return encoding.signing_input(protected, data, is_encoded=is_encoded)


def require_own(members: Members, identity: Identity) -> None:
    """Raise ``CryptoFailure`` if one of ``members`` names another key."""
    for name, is_own in _NAMING.items():
        if name in members and not is_own(members, identity):
            raise CryptoFailure(f"Header member '{name}' does not name this key")


# --- What names a key, and how it has to ---


def _is_name(members: Members, identity: Identity) -> bool:
    return members["kid"] is None or members["kid"] in identity.names


def _is_public_half(members: Members, identity: Identity) -> bool:
    jwk, own = members["jwk"], identity.jwk
    if own is None or any(name in jwk for name in PRIVATE_MEMBERS):
        return False
    require_own({name: jwk[name] for name in _CERTIFYING if name in jwk}, identity)
    return all(jwk.get(name) == own[name] for name in own)


def _is_certified(members: Members, identity: Identity) -> bool:
    own, certificate = identity.jwk, _first_certificate(members)
    return own is not None and hsm.is_certificate_of(certificate, load_public(own))


def _is_thumbprint(name: str, hash_of: Callable[[bytes], Any]) -> IsOwn:
    """Tell of the certificate in the same place, or else of the one that the key has."""

    def is_thumbprint(members: Members, identity: Identity) -> bool:
        found = members if "x5c" in members else {"x5c": identity.certificates()}
        certificate = _first_certificate(found)
        digest = hash_of(certificate).digest()
        return bool(certificate) and members[name] == encoding.encode(digest)

    return is_thumbprint


def _first_certificate(members: Members) -> bytes:
    """Return the DER of the first one of ``x5c`` (RFC 7515 §4.1.6), empty unless there is one."""
    try:
        return b64decode(members["x5c"][0], validate=True)
    except (KeyError, IndexError, TypeError, ValueError):
        return b""


_CERTIFYING: Final[Mapping[str, IsOwn]] = MappingProxyType(
    {
        "x5c": _is_certified,
        "x5t": _is_thumbprint("x5t", hashlib.sha1),
        "x5t#S256": _is_thumbprint("x5t#S256", hashlib.sha256),
    }
)
_NAMING: Final[Mapping[str, IsOwn]] = MappingProxyType(
    {"kid": _is_name, "jwk": _is_public_half, **_CERTIFYING}
)


# --- What is known of a key ---


def _public_half(identity: Identity) -> Mapping[str, str]:
    if identity.jwk is None:
        raise CryptoFailure("The key has no public half")
    return identity.jwk


def _certificates(identity: Identity) -> list[str]:
    certificates = identity.certificates()
    if not certificates:
        raise CryptoFailure("The key has no certificate")
    return list(certificates)


def _thumbprint(identity: Identity) -> str:
    return thumbprint(_certificates(identity)[0])


_KNOWN: Final[Mapping[str, Callable[[Identity], Any]]] = MappingProxyType(
    {"jwk": _public_half, "x5c": _certificates, "x5t#S256": _thumbprint}
)
