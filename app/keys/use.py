"""Using keys: find the key, check the right, check that it fits, operate in the token."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import hsm
from app import current_request
from app.jose import encoding
from app.jose.jwe_header import JweHeader
from app.jwk import load_public
from app.keys.access import (
    Existing,
    KeysOfMessage,
    Rows,
    RowsOfBatch,
    find,
    find_of_message,
    find_to_encrypt,
    find_to_mac,
    find_to_sign,
    performed,
    require_existing,
    require_fit,
    require_on_curve,
    require_permitted,
    require_permitted_verification,
    require_signer,
    require_signs_digests,
)
from app.keys.budget import EncryptionBudget, is_counted
from app.keys.general.selection import addressed_to, note_verifiers, permits, recipients_of
from app.keys.headers import (
    Identity,
    head_of,
    members_for,
    protected_by,
    signing_input_of,
)
from app.registry import Key, Registry
from app.rights import Principal, Right
from app.schemas.messages.addressed import Addressed, names_of
from app.schemas.messages.caller_header import CallerHeader
from app.schemas.messages.received_header import Header
from hsm import CryptoFailure, DecryptionFailed, Hsm, Sealed

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """What a principal may do to messages with keys named by kid.

    Every method raises ``KeyNotFound``, then ``Forbidden``, then ``CryptoFailure`` if the key does
    not fit; ``TokenUnavailable`` or ``RegistryUnavailable`` if one of them cannot answer now.
    """

    registry: Registry
    rows: Rows
    hsm: Hsm
    budget: EncryptionBudget

    @contextmanager
    def together(self, principal: Principal, kids: Iterable[str]) -> Iterator["KeyUse"]:
        """Give what uses many keys for ``principal``, in one ``with`` block.

        All the keys are read at once, and the operations share a session of the token.
        """
        rows = RowsOfBatch(self.registry, principal, kids)
        with self.hsm.together():
            yield replace(self, rows=rows)

    def encrypt(  # noqa: PLR0913  # the members of the request
        self,
        principal: Principal,
        *,
        kid: str,
        alg: str,
        enc: str,
        data: bytes,
        aad: str | None,
        apu: str | None = None,
        apv: str | None = None,
        media_types: Mapping[str, str] = _NONE,
        header: CallerHeader | None = None,
    ) -> dict[str, Any]:
        """Return a flattened JWE (RFC 7516 §5.1); its header names the key that decrypts.

        Raises ``CryptoFailure`` also if the caller's ``header`` names another key.
        """
        key = find_to_encrypt(self.rows, self.hsm, principal, kid, performed(alg, enc))
        if header is not None:
            media_types = {**media_types, **members_for(self.identity(key), header)}
        head = head_of(key, alg, enc, aad=aad, apu=apu, apv=apv, media_types=media_types)
        return self.encrypt_with(key, head, data)

    def encrypt_with(self, key: Key, head: JweHeader, data: bytes) -> dict[str, Any]:
        """Return a flattened JWE for ``key``, which has been checked, with that header."""
        alg, enc = head.names["alg"], head.names["enc"]
        self.count(key, alg, enc)
        with Existing(self.registry, key):
            made = self.hsm.encrypt(key.ref, alg, enc, data, head.additional_data, head.agreement)
        return head.jwe(made)

    def decrypt(
        self,
        principal: Principal,
        header: Header,
        *,
        encrypted_key: bytes,
        sealed: Sealed,
        aad: str | None,
    ) -> bytes:
        """Return the plaintext (RFC 7516 §5.2)."""
        key = find_of_message(self.rows, principal, header, Right.DECRYPT)
        return self.decrypt_with(key, header, encrypted_key, sealed, aad)

    def decrypt_general(
        self,
        principal: Principal,
        recipients: Sequence[Addressed],
        *,
        kid: str | None,
        sealed: Sealed,
        aad: str | None,
    ) -> tuple[str, bytes]:
        """Return the name of the key and the plaintext, for one of several recipients.

        Where the key is named beside the message, and by no recipient, each that it may be is
        tried. Raises ``BadRequest`` if all recipients name other keys.
        """
        keys = KeysOfMessage(self.rows, principal, names_of(recipients, kid))
        *others, (key, last) = recipients_of(keys, recipients, kid, Right.DECRYPT)
        for _, one in others:
            with suppress(DecryptionFailed):
                return kid or str(one.kid), self._decrypt_for(key, one, sealed, aad)
        return kid or str(last.kid), self._decrypt_for(key, last, sealed, aad)

    def _decrypt_for(self, key: Key, one: Addressed, sealed: Sealed, aad: str | None) -> bytes:
        return self.decrypt_with(key, one.usable_header, one.octets, sealed, aad)

    def decrypt_with(
        self, key: Key, header: Header, encrypted_key: bytes, sealed: Sealed, aad: str | None
    ) -> bytes:
        """Return the plaintext, opened with ``key``, on which the right has been checked."""
        alg, enc = header.alg, header.enc
        require_fit(self.hsm, key, performed(alg, enc))
        require_on_curve(key, header.agreement)
        additional_data = encoding.additional_data(header.protected, aad)
        with Existing(self.registry, key):
            return self.hsm.decrypt(
                key.ref, alg, enc, encrypted_key, sealed, additional_data, header.agreement
            )

    def sign(  # noqa: PLR0913  # the members of the request
        self,
        principal: Principal,
        *,
        kid: str,
        alg: str,
        data: str,
        media_types: Mapping[str, str] = _NONE,
        header: CallerHeader | None = None,
    ) -> dict[str, Any]:
        """Return a detached JWS; its header names the key that verifies (RFC 7515 §5.1).

        Raises ``CryptoFailure`` also if the caller's ``header`` names another key.
        """
        key = find_to_sign(self.rows, principal, kid, alg)
        protected = self.jws_header(key, alg, media_types, header)
        signing_input = signing_input_of(protected, data, header)
        with Existing(self.registry, key):
            signature = self.hsm.sign(key.ref, alg, signing_input)
        return {"protected": protected, "signature": signature}

    def sign_with_mac(  # noqa: PLR0913  # as above
        self,
        principal: Principal,
        *,
        kid: str,
        alg: str,
        data: str,
        media_types: Mapping[str, str] = _NONE,
        header: CallerHeader | None = None,
    ) -> dict[str, Any]:
        """Return a detached JWS whose signature is a MAC (RFC 7518 §3.2); see ``sign``."""
        key = find_to_mac(self.rows, principal, kid, alg)
        protected = self.jws_header(key, alg, media_types, header)
        signing_input = signing_input_of(protected, data, header)
        with Existing(self.registry, key):
            code = self.hsm.mac(key.ref, alg, signing_input)
        return {"protected": protected, "signature": code}

    def sign_raw(
        self,
        principal: Principal,
        *,
        kid: str,
        alg: str,
        data: bytes | None,
        digest: bytes | None,
    ) -> bytes:
        """Return a signature over ``data``, or over what has the ``digest``, without any header."""
        key = find_to_sign(self.rows, principal, kid, alg, Right.SIGN_RAW)
        if digest is not None:
            require_signs_digests(key, alg)
        with Existing(self.registry, key):
            if digest is not None:
                return self.hsm.sign_digest(key.ref, alg, digest)
            return self.hsm.sign(key.ref, alg, data or b"")

    def request_certificate(
        self,
        principal: Principal,
        kid: str,
        *,
        subject: Mapping[str, str],
        dns: Sequence[str] | None,
        alg: str | None,
    ) -> str:
        """Return a request for a certificate in PEM (RFC 2986), signed by the key."""
        key = find(self.rows, principal, kid, Right.SIGN)
        performed = [row.name for row in key.spec.algorithms if row.name in hsm.REQUESTING]
        alg = alg or next(iter(performed), None)
        if alg not in performed:
            raise CryptoFailure("The key signs no request for a certificate, or not with that alg")
        require_signer(key, kid, alg)
        sign = partial(self.hsm.sign, key.ref, alg)
        public = load_public(key.public_jwk or {})
        with Existing(self.registry, key):
            return hsm.certificate_request(public, alg, subject, dns or (), sign)

    def verify(self, principal: Principal, header: Header, *, data: str, signature: bytes) -> bool:
        """Tell whether ``signature`` is one over ``data``, or the MAC of it (RFC 7515 §5.2)."""
        right = Right.MAC if header.alg in hsm.MACS else Right.VERIFY
        key = find_of_message(self.rows, principal, header, right)
        require_permitted_verification(key, header.alg)
        return self._verify(key, header, data, signature)

    def verify_general(
        self, principal: Principal, signatures: Sequence[Addressed], *, kid: str | None, data: str
    ) -> list[bool | None]:
        """Tell of each signature whether it is valid, ``None`` of those of keys of others.

        With a ``kid`` beside them only that key counts. If none of them names it, that one counts
        which it has made. Raises ``BadRequest`` if all name other keys, ``CryptoFailure`` if the
        key is for none of them.
        """
        keys = KeysOfMessage(self.rows, principal, names_of(signatures, kid))
        if kid is None:
            pairs = [(keys.usable_to_verify(one.kid), one) for one in signatures]
            note_verifiers(pairs)
            return [self._verify_one(key, one, data) for key, one in pairs]
        key = keys.find_to_verify(kid)
        own = [one for one in addressed_to(keys, signatures, key) if permits(key, one)]
        if not own:
            raise CryptoFailure("The key does not permit the algorithm of any signature")
        current_request.name(kid=str(key.kid), alg=own[0].usable_header.alg)
        valid = [self._verify_one(key if one in own else None, one, data) for one in signatures]
        is_named = any(keys.is_that(one.kid, key) for one in own)
        return valid if is_named or True not in valid else [one or None for one in valid]

    def _verify_one(self, key: Key | None, one: Addressed, data: str) -> bool | None:
        if key is None:
            return None
        return permits(key, one) and self._verify(key, one.usable_header, data, one.octets)

    def _verify(self, key: Key, header: Header, data: str, signature: bytes) -> bool:
        signing_input = encoding.signing_input(header.protected, data, is_encoded=header.is_encoded)
        with Existing(self.registry, key):
            verify = self.hsm.verify_mac if header.alg in hsm.MACS else self.hsm.verify
            is_valid = verify(key.ref, header.alg, signing_input, signature)
        return is_valid or self._refused(key)

    def mac(self, principal: Principal, *, kid: str, alg: str, data: bytes) -> bytes:
        """Return the MAC of ``data`` (RFC 7518 §3.2)."""
        key = find_to_mac(self.rows, principal, kid, alg)
        with Existing(self.registry, key):
            return self.hsm.mac(key.ref, alg, data)

    def verify_mac(
        self, principal: Principal, *, kid: str, alg: str, data: bytes, mac: bytes
    ) -> bool:
        """Tell whether ``mac`` is the MAC of ``data``."""
        key = find(self.rows, principal, kid, Right.MAC)
        require_permitted(key, alg)
        with Existing(self.registry, key):
            is_valid = self.hsm.verify_mac(key.ref, alg, data, mac)
        return is_valid or self._refused(key)

    def count(self, key: Key, alg: str, enc: str) -> None:
        """Count an encryption, if those of ``key`` have to be; see ``EncryptionBudget.spend``."""
        if is_counted(alg, enc):
            self.budget.spend(key.kid)

    def jws_header(
        self, key: Key, alg: str, media_types: Mapping[str, str], header: CallerHeader | None
    ) -> str:
        """Return the protected header that names ``key``, with what the caller adds."""
        name = key.public_name
        if header is None:
            return encoding.header(media_types, alg=alg, kid=name)
        return protected_by(header, self.identity(key), alg=alg, kid=name, **media_types)

    def identity(self, key: Key) -> Identity:
        """Return what a header may say of ``key``."""

        def certificates() -> Sequence[str]:
            whole = self.registry.whole(key.kid)
            return whole.certificates if whole else ()

        names = frozenset(str(kid) for kid in (key.kid, key.kid_public, key.alias) if kid)
        return Identity(names=names, jwk=key.public_jwk, certificates=certificates)

    def _refused(self, key: Key) -> bool:
        """Return ``False``: not valid; raise ``KeyNotFound`` if the key is not there any more."""
        require_existing(self.registry, key)
        return False
