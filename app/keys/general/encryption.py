"""Encrypting a message to a key of somebody else's, or to several keys (RFC 7516 §7.2.1)."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import hsm
from app import current_request
from app.jose import encoding
from app.jose.jwe_header import JweHeader
from app.jwk import write_public
from app.keys.access import Existing, KeysOfMessage, require_encrypts
from app.keys.headers import Identity, members_for
from app.keys.use import KeyUse
from app.registry import Key
from app.rights import Principal, Right
from app.schemas.messages.caller_header import CallerHeader
from app.schemas.messages.receivers import Receiver
from app.schemas.public_jwk import PublicJwk
from hsm import CryptoFailure

_NONE: Final[Mapping[str, str]] = MappingProxyType({})

Keys = Sequence[Key | None]
"""Of each recipient, ``None`` if it has brought its key along."""


def encrypt_to(  # noqa: PLR0913  # the members of the request
    *,
    jwk: PublicJwk,
    alg: str,
    enc: str,
    data: bytes,
    aad: str | None,
    apu: str | None = None,
    apv: str | None = None,
    media_types: Mapping[str, str] = _NONE,
    header: CallerHeader | None = None,
) -> dict[str, Any]:
    """Return a flattened JWE for a key of somebody else's, which no token has a part in."""
    named = {} if jwk.kid is None else {"kid": jwk.kid}
    if header is not None:
        media_types = {**media_types, **members_for(_identity(jwk), header)}
    head = JweHeader(
        names={"alg": alg, "enc": enc, **named},
        party_info={"apu": apu, "apv": apv},
        others=media_types,
        aad=aad,
    )
    made = hsm.encrypt_to(jwk.key, alg, enc, data, head.additional_data, head.agreement)
    return head.jwe(made)


def encrypt_general(  # noqa: PLR0913  # the members of the request
    use: KeyUse,
    principal: Principal,
    *,
    recipients: Sequence[Receiver],
    enc: str,
    data: bytes,
    aad: str | None,
    media_types: Mapping[str, str],
    header: CallerHeader | None,
) -> dict[str, Any]:
    """Return a JWE with a header and an encrypted key of each recipient, in their order.

    All is checked before anything is encrypted. Raises what ``KeyUse.encrypt`` does for any.
    """
    keys = _keys_of(use, principal, recipients)
    members = {} if header is None else _members_for_all(use, keys, recipients, header)
    protected = encoding.header({**media_types, **members}, enc=enc)
    heads = [_head(key, one) for key, one in zip(keys, recipients, strict=True)]
    own = [key for key in keys if key is not None]
    for key, one in zip(keys, recipients, strict=True):
        if key is not None:
            use.count(key, one.alg, enc)
    to = [_recipient(*each) for each in zip(keys, recipients, heads, strict=True)]
    encrypt = use.hsm.encrypt_for_all if own else hsm.encrypt_to_all
    with Existing(use.registry, *own):
        made = encrypt(to, enc, data, encoding.additional_data(protected, aad))
    told = [_told(head, its) for head, its in zip(heads, made, strict=True)]
    jwe = {"protected": protected, "recipients": told, **made[0].sealed._asdict()}
    return jwe if aad is None else jwe | {"aad": aad}


def _keys_of(use: KeyUse, principal: Principal, recipients: Sequence[Receiver]) -> Keys:
    """Return the key of each, read at once; the logs name the one that is refused."""
    kids = frozenset(one.kid for one in recipients if one.kid is not None)
    rows = KeysOfMessage(use.rows, principal, kids) if kids else None
    keys: list[Key | None] = []
    for one in recipients:
        key = None
        if rows is not None and one.kid is not None:
            current_request.name_next(kid=one.kid, alg=one.alg)
            key = rows.find(one.kid, Right.ENCRYPT)
            require_encrypts(use.hsm, key, one.alg)
        keys.append(key)
    own = [(str(key.kid), one.alg) for key, one in zip(keys, recipients, strict=True) if key]
    current_request.name_several([kid for kid, _ in own], next((alg for _, alg in own), None))
    return keys


def _members_for_all(
    use: KeyUse, keys: Keys, recipients: Sequence[Receiver], header: CallerHeader
) -> Mapping[str, Any]:
    """Return the members that a caller has written, which must be so for each."""
    first, *others = (
        members_for(_identity(_brought(one)) if key is None else use.identity(key), header)
        for key, one in zip(keys, recipients, strict=True)
    )
    if any(members != first for members in others):
        raise CryptoFailure("A header member that names a key does not name all recipients")
    return first


def _told(head: JweHeader, made: hsm.Encrypted) -> dict[str, Any]:
    return {"header": head.of_recipient(made.agreement), "encrypted_key": made.encrypted_key}


def _brought(one: Receiver) -> PublicJwk:
    assert one.jwk is not None  # noqa: S101  # it has no kid
    return one.jwk


def _identity(jwk: PublicJwk) -> Identity:
    return Identity(names=frozenset(filter(None, (jwk.kid,))), jwk=write_public(jwk.key))


def _head(key: Key | None, one: Receiver) -> JweHeader:
    kid = key.private_name if key else _brought(one).kid
    named = {} if kid is None else {"kid": kid}
    party_info = {"apu": one.apu, "apv": one.apv}
    return JweHeader(names={"alg": one.alg, **named}, party_info=party_info, others={}, aad=None)


def _recipient(key: Key | None, one: Receiver, head: JweHeader) -> hsm.Recipient:
    its = key.ref if key else _brought(one).key
    return hsm.Recipient(key=its, alg=one.alg, agreement=head.agreement)
