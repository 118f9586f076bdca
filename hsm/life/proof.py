"""Proofs that a token performs an algorithm: tried with session objects, believed when right.

The mechanism list of a token says what it would like to do; only a trial says what it does.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial, singledispatchmethod
from typing import Any, Final, NamedTuple

from pkcs11 import Object

from hsm.algorithms.families import (
    Algorithm,
    ContentEncryption,
    KeyAgreement,
    KeyManagement,
    KeyWrapping,
    MacAlgorithm,
    SignatureAlgorithm,
)
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import ML_DSA, RSA, Curve
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.canary import Canary
from hsm.cryptoki.handles import Handle, Key, bind, temporary, temporary_parts
from hsm.cryptoki.material import PublicKey
from hsm.cryptoki.session import Session
from hsm.errors import DecryptionFailed, HsmError
from hsm.operations import content, mac, signing
from hsm.operations.cek import Outcome, Path
from hsm.operations.content import Cek, Sealed
from hsm.operations.ecdh import Agreement
from hsm.software import peer, sealing
from hsm.software.peer import Sent

_MESSAGE: Final = b"jose-hsm"
_OTHER_MESSAGE: Final = b"jose-hsn"
_RSA_BITS: Final = 2048
_ODD_BYTES: Final = 40


class _Recipient(NamedTuple):
    """Somebody to send CEKs to: keys in the token, and what a peer in software has of them."""

    public: Key
    private: Key
    known: Any


class Proof:
    """Trials on one token.

    Each raises ``HsmError`` for a wrong result and ``PKCS11Error`` for none. Pairs are made once
    for each kind and curve on ``anchor``, because a session that failed takes its objects along.
    """

    def __init__(self, anchor: Session, templates: Templates, canary: Canary) -> None:
        self._anchor = anchor
        self._templates = templates
        self._canary = canary
        self._pairs: dict[KeySpec, tuple[Handle, Handle]] = {}
        self._made: list[Object] = []

    @singledispatchmethod
    def attempt(self, row: Algorithm, curve: Curve | None, session: Session) -> None:
        """Perform ``row``, with a key on ``curve``, on ``session`` and check the result."""
        raise NotImplementedError

    @attempt.register
    def _signature(self, row: SignatureAlgorithm, curve: Curve | None, session: Session) -> None:
        public, private = self._pair(session, row, curve)
        signature = signing.sign(private, row, _MESSAGE, _numbers(public))

        def verifies(message: bytes) -> bool:
            return signing.verify(public, row, message, signature, self._canary)

        _require(verifies(_MESSAGE) and not verifies(_OTHER_MESSAGE))

    @attempt.register
    def _mac(self, row: MacAlgorithm, _curve: Curve | None, session: Session) -> None:
        with temporary(self._secret(session, row, 8 * row.mac_bytes)) as key:
            code = mac.compute(key, row, _MESSAGE)
            _require(mac.verify(key, row, _MESSAGE, code))
            _require(not mac.verify(key, row, _OTHER_MESSAGE, code))

    @attempt.register
    def _content(self, row: ContentEncryption, _curve: Curve | None, session: Session) -> None:
        shares = row.shares(bytes(row.key_bytes))
        makes = [
            partial(self._secret, session, part, 8 * len(share))
            for part, share in zip(row.parts, shares, strict=True)
        ]
        with temporary_parts(makes) as cek:
            sealed = content.encrypt(cek, row, _MESSAGE, _MESSAGE)

            def opens(aad: bytes) -> bool:
                return _opens(cek, row, sealed, aad, self._canary)

            _require(opens(_MESSAGE) and not opens(_OTHER_MESSAGE))

    def attempt_transport(
        self,
        row: KeyManagement,
        path: Path,
        encs: Sequence[ContentEncryption],
        curve: Curve | None,
        session: Session,
    ) -> None:
        """Exchange CEKs on ``path``: with itself, with a peer in software, and bad ones.

        ``encs`` differ in size; the longest is the last.
        """
        _require(path.works(session))
        with self._recipient(row, curve, session) as recipient:
            for enc, sent, sealed, is_good in self._messages(row, path, encs, recipient):
                with path.unwrapped(
                    recipient.private, row, enc, sent.encrypted_key, sent.said
                ) as unwrapped:
                    is_recovered = unwrapped.outcome is Outcome.RECOVERED
                    # What is agreed on is always something, and the wrong thing does not open it.
                    _require(is_recovered is (is_good or not row.transports))
                    is_open = _opens(unwrapped.cek, enc, sealed, _MESSAGE, self._canary)
                    _require(is_open is is_good)

    @staticmethod
    def _messages(
        row: KeyManagement, path: Path, encs: Sequence[ContentEncryption], recipient: _Recipient
    ) -> Iterator[tuple[ContentEncryption, Sent, Sealed, bool]]:
        public, _, known = recipient
        enc, other_enc = encs[-1], encs[0]
        with path.wrapped(public, row, enc) as wrapped:
            sealed = content.encrypt(wrapped.cek, enc, _MESSAGE, _MESSAGE)
        yield enc, Sent(b"", wrapped.encrypted_key, Agreement(wrapped.epk)), sealed, True
        sent = peer.send(known, row, enc, os.urandom(enc.key_bytes))
        sealed = _sealed_by_peer(enc, sent.cek)
        yield enc, sent, sealed, True
        if isinstance(row, KeyAgreement) and row.wrapping:
            return  # how a bad CEK fails has been tried with ``wrapping`` itself
        yield other_enc, sent, sealed, False
        if row.transports:
            yield enc, peer.send(known, row, enc, os.urandom(_ODD_BYTES)), sealed, False
            bad_key = bytes(len(sent.encrypted_key))
            yield enc, sent._replace(encrypted_key=bad_key), sealed, False

    @contextmanager
    def _recipient(
        self, row: KeyManagement, curve: Curve | None, session: Session
    ) -> Iterator[_Recipient]:
        if not isinstance(row, KeyWrapping):
            public, private = self._pair(session, row, curve)
            yield _Recipient(public, private, public.public)
            return
        value = os.urandom(row.key_bytes)
        template = self._templates.imported_secret(None, row, value)
        with temporary(bind(session, session.create_object(template))) as key:
            yield _Recipient(key, key, value)

    def close(self) -> None:
        """Destroy the pairs."""
        for made in self._made:
            self._anchor.destroy(made)

    def _secret(self, session: Session, row: Algorithm, bits: int) -> Key:
        made = session.generate_key(
            row.kind.key_type, bits, **self._templates.secret_generation([row])
        )
        return bind(session, made)

    def _pair(self, session: Session, row: Algorithm, curve: Curve | None) -> tuple[Key, Key]:
        kind = curve.kind if curve else row.kind
        alg = row.name if row.is_bound_only or kind is ML_DSA else None
        spec = KeySpec(kty=kind.ktys[0], alg=alg, crv=curve.crv if curve else None)
        if spec not in self._pairs:
            self._pairs[spec] = self._generate(spec)
        public, private = self._pairs[spec]
        return Key(session, public), Key(session, private)

    def _generate(self, spec: KeySpec) -> tuple[Handle, Handle]:
        bits = _RSA_BITS if spec.kind is RSA else None
        pair = self._anchor.generate_keypair(
            spec.kind.key_type, bits, **self._templates.pair_generation(spec)
        )
        self._made.extend(pair)
        public, private = pair
        return Handle.of(public), Handle.of(private)


def _numbers(public: Key) -> PublicKey:
    assert public.public is not None  # noqa: S101  # ``Handle.of`` reads that of every public half
    return public.public


def _sealed_by_peer(enc: ContentEncryption, cek: bytes) -> Sealed:
    return sealing.seal(enc, cek, os.urandom(enc.iv_bytes), _MESSAGE, _MESSAGE)


def _opens(cek: Cek, row: ContentEncryption, sealed: Sealed, aad: bytes, canary: Canary) -> bool:
    try:
        return content.decrypt(cek, row, sealed, aad, canary) == _MESSAGE
    except DecryptionFailed:
        return False


def _require(is_right: bool) -> None:
    if not is_right:
        raise HsmError
