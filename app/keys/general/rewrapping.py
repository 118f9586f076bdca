"""Making a message one for another key: its CEK is wrapped for that, or it is encrypted anew."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import hsm
from app import current_request
from app.jose import encoding
from app.jose.jwe_header import JweHeader
from app.keys.access import (
    Existing,
    KeysOfMessage,
    performed,
    require_encrypts,
    require_fit,
    require_on_curve,
)
from app.keys.general.selection import recipients_of
from app.keys.use import KeyUse
from app.registry import Key
from app.rights import Principal, Right
from app.schemas.messages.addressed import names_of
from app.schemas.messages.header_parts import Members
from app.schemas.messages.received_header import Header
from app.schemas.messages.rewrapping import ReceivedJwe, Target
from hsm import CryptoFailure, DecryptionFailed, Sealed

_NO_PARTIES: Final = MappingProxyType({"apu": None, "apv": None})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """The recipient at that ``place``, whose key is the caller's."""

    key: Key
    header: Header
    encrypted_key: bytes
    place: int


def rewrap(use: KeyUse, principal: Principal, body: Mapping[str, Any]) -> Members:
    """Return the JWE of a checked ``body`` for another key, in the form in which it came.

    All is checked before anything is opened. Raises what ``KeyUse.decrypt`` and ``KeyUse.encrypt``
    do, and ``CryptoFailure`` if others have the CEK too, and it cannot stay.
    """
    to: Target = body["to"]
    several, header = body.get("recipients", ()), body.get("protected")
    named = header.kids if header else names_of(several, body["kid"])
    keys = KeysOfMessage(use.rows, principal, {*named, to.kid})
    sources = _sources(keys, body)
    for one in sources:
        require_fit(use.hsm, one.key, performed(one.header.alg, one.header.enc))
        require_on_curve(one.key, one.header.agreement)
    new = _new_key(use, keys, to, sources[0])
    work = _Rewrapping(
        use=use,
        message=body["message"],
        sealed=Sealed(body["iv"], body["ciphertext"], body["tag"]),
        aad=body["aad"],
        key=new,
        alg=to.alg,
    )
    *others, last = sources
    for one in others:
        with suppress(DecryptionFailed):
            return work.of(one)
    return work.of(last)


def _sources(keys: KeysOfMessage, body: Mapping[str, Any]) -> list[_Source]:
    """Return the recipients to be tried, in order; see ``recipients_of``."""
    header: Header | None = body.get("protected")
    if header is not None:
        key, octets = keys.find_of(header, Right.DECRYPT), body["encrypted_key"] or b""
        return [_Source(key=key, header=header, encrypted_key=octets, place=0)]
    several = body["recipients"]
    return [
        _Source(
            key=key,
            header=one.usable_header,
            encrypted_key=one.octets,
            place=several.index(one),
        )
        for key, one in recipients_of(keys, several, body["kid"], Right.DECRYPT)
    ]


def _new_key(use: KeyUse, keys: KeysOfMessage, to: Target, source: _Source) -> Key:
    """Return the key that the message is to be for; the logs name it if it is refused."""
    current_request.name_next(kid=to.kid, alg=to.alg)
    new = keys.find(to.kid, Right.ENCRYPT)
    require_encrypts(use.hsm, new, performed(to.alg, source.header.enc))
    current_request.name_several([str(source.key.kid), str(new.kid)], source.header.alg)
    return new


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rewrapping:
    """A message that is to be for ``key``, by ``alg``."""

    use: KeyUse
    message: ReceivedJwe
    sealed: Sealed
    aad: str | None
    key: Key
    alg: str

    def of(self, source: _Source) -> Members:
        """Return it for ``key`` in place of that recipient."""
        if self.message.keeps_cek(source.header.alg, self.alg):
            return self._with_its_cek(source)
        if len(self.message.recipients) > 1:
            raise CryptoFailure(
                "Other recipients have the content encryption key, and it cannot stay"
            )
        return self._anew(source)

    def _with_its_cek(self, source: _Source) -> Members:
        use, old, enc = self.use, source.header, source.header.enc
        use.count(self.key, self.alg, enc)
        received = hsm.Received(
            enc=enc,
            encrypted_key=source.encrypted_key,
            sealed=self.sealed,
            aad=encoding.additional_data(old.protected, self.aad),
        )
        held = hsm.Recipient(key=source.key.ref, alg=old.alg, agreement=old.agreement)
        with Existing(use.registry, source.key, self.key):
            made = use.hsm.rewrap(held, hsm.Recipient(key=self.key.ref, alg=self.alg), received)
        header = self._head({}).of_recipient(made.agreement)
        return self.message.with_recipient(source.place, header, made.encrypted_key)

    def _anew(self, source: _Source) -> Members:
        header, octets = source.header, source.encrypted_key
        data = self.use.decrypt_with(source.key, header, octets, self.sealed, self.aad)
        head = self._head({"enc": header.enc}, self.message.kept_members)
        return self.message.anew(self.use.encrypt_with(self.key, head, data))

    def _head(self, more: Mapping[str, str], others: Members = MappingProxyType({})) -> JweHeader:
        names = {"alg": self.alg, **more, "kid": self.key.private_name}
        return JweHeader(names=names, party_info=_NO_PARTIES, others=others, aad=self.aad)
