"""Proofs that a token performs an algorithm: tried with session objects, believed when right.

The mechanism list of a token says what it would like to do; only a trial says what it does.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple

from pkcs11 import Object, PKCS11Error

from hsm.algorithms.families import (
    Algorithm,
    ContentEncryption,
    KeyAgreement,
    KeyManagement,
)
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import RSA, Curve
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.canary import Canary
from hsm.cryptoki.faults import REFUSALS, Fault, fault_of
from hsm.cryptoki.handles import Handle, Key, PublicHandle, PublicObject
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.session import Session
from hsm.errors import require
from hsm.life.variants import clear
from hsm.messages import Sealed
from hsm.operations import content, jwe
from hsm.operations.cek import CekPath, Outcome
from hsm.operations.jwe import Transport
from hsm.operations.round_trips import ROUND_TRIPS
from hsm.operations.session_keys import SessionKeys
from hsm.software import peer, sealing
from hsm.software.peer import Sent

_MESSAGE: Final = b"jose-hsm"
_OTHER_MESSAGE: Final = b"jose-hsn"
_RSA_BITS: Final = 2048
_ODD_BYTES: Final = 40

Pair = tuple[PublicHandle, Handle]


class _Recipient(NamedTuple):
    """Somebody to send CEKs to: keys in the token, and what a peer in software has of them."""

    keys: Keys
    known: Any


class _Message(NamedTuple):
    """What a peer sends, and whether it is to open with this ``enc``."""

    enc: ContentEncryption
    sent: Sent
    sealed: Sealed
    is_good: bool


class Proof:
    """Trials on one token.

    Each raises ``HsmError`` for a wrong result and ``PKCS11Error`` for none. Pairs are made once
    for each kind and curve on ``anchor``, because a session that failed takes its objects along.
    They are made anew if they are gone: another process clears up stored ones when it starts.
    """

    def __init__(self, anchor: Session, templates: Templates, canary: Canary) -> None:
        self._anchor = anchor
        self._templates = templates
        self._plain = replace(templates, in_process=frozenset())
        self._canary = canary
        self._session_keys = SessionKeys(templates, canary)
        self._pairs: dict[tuple[KeySpec, Templates], Pair] = {}
        self._made: list[Object] = []

    def attempt(self, row: Algorithm, curve: Curve | None, session: Session) -> None:
        """Perform ``row``, with a key on ``curve``, on ``session`` and check the result."""
        round_trip = ROUND_TRIPS[row.family]
        try:
            with self._keys(session, row, curve) as keys:
                require(round_trip(keys, row, _MESSAGE, _MESSAGE))
                require(not round_trip(keys, row, _MESSAGE, _OTHER_MESSAGE))
        except PKCS11Error as error:
            if fault_of(error) is Fault.KEY_GONE:
                self._pairs.clear()
            raise

    def attempt_size(self, row: ContentEncryption, plaintext_bytes: int, session: Session) -> None:
        """Seal and open a plaintext of that length."""
        plaintext = bytes(plaintext_bytes)
        with self._keys(session, row, None) as cek:
            sealed = content.seal(cek, row, plaintext, _MESSAGE)
            content.require_opens(cek, row, sealed, _MESSAGE, plaintext)

    def attempt_transport(
        self,
        row: KeyManagement,
        path: CekPath,
        encs: Sequence[ContentEncryption],
        curve: Curve | None,
        session: Session,
    ) -> None:
        """Exchange CEKs on ``path``: with itself, with a peer in software, and bad ones.

        ``encs`` differ in size; the longest is the last.
        """
        require(path.works(session))
        with self._recipient(row, path, curve, session) as recipient:
            require(jwe.round_trip(recipient.keys, Transport(path, row, encs[-1]), _MESSAGE))
            for message in _messages(row, encs, recipient.known):
                _receive(recipient.keys, Transport(path, row, message.enc), message)

    def close(self) -> None:
        """Destroy the pairs; stored ones that the token keeps now are for the next start."""
        suppressed = (PKCS11Error,) if self._templates.stores_trials else ()
        for made in self._made:
            with suppress(*suppressed):
                self._anchor.destroy_if_there(made)

    @contextmanager
    def _recipient(
        self, row: KeyManagement, path: CekPath, curve: Curve | None, session: Session
    ) -> Iterator[_Recipient]:
        if row.kind.is_pair:
            keys = self._pair(session, row, curve, is_bare=path.takes_bare_rsa)
            yield _Recipient(keys, keys.public.numbers)
            return
        value = os.urandom(row.key_bytes)
        with self._session_keys.imported(session, row, value) as keys:
            yield _Recipient(keys, value)

    def _keys(
        self, session: Session, row: Algorithm, curve: Curve | None
    ) -> AbstractContextManager[Keys]:
        if row.kind.is_pair:
            return nullcontext(self._pair(session, row, curve))
        return self._session_keys.generated(session, row, row.smallest_bytes)

    def _pair(
        self, session: Session, row: Algorithm, curve: Curve | None, *, is_bare: bool = False
    ) -> Keys:
        kind = curve.kind if curve else row.kind
        alg = row.name if row.is_bound_only else None
        spec = KeySpec(kty=kind.ktys[0], alg=alg, crv=curve.crv if curve else None)
        public, private = (self._whole if is_bare else self._whole_or_plain)(spec)
        return Keys.pair(self._canary, PublicObject(session, public), Key(session, private))

    def _whole_or_plain(self, spec: KeySpec) -> Pair:
        """Return a pair without the bare RSA operation, if the token makes none with it."""
        try:
            return self._whole(spec)
        except PKCS11Error as error:
            if fault_of(error) not in REFUSALS:
                raise
            return self._made_once(spec, self._plain)

    def _whole(self, spec: KeySpec) -> Pair:
        return self._made_once(spec, self._templates)

    def _made_once(self, spec: KeySpec, templates: Templates) -> Pair:
        if (spec, templates) not in self._pairs:
            self._pairs[spec, templates] = self._generate(spec, templates)
        return self._pairs[spec, templates]

    def _generate(self, spec: KeySpec, templates: Templates) -> Pair:
        if templates.stores_trials and not self._made:
            clear(self._anchor)
        bits = _RSA_BITS if spec.kind is RSA else None
        pair = self._anchor.generate_keypair(spec.kind.key_type, bits, **templates.pair_trial(spec))
        self._made.extend(pair)
        public, private = pair
        return PublicHandle.of(public), Handle.of(private)


def _messages(
    row: KeyManagement, encs: Sequence[ContentEncryption], known: Any
) -> Iterator[_Message]:
    """Give what a peer sends to ``known``: a good message, and bad ones like it."""
    enc, other_enc = encs[-1], encs[0]
    sent = peer.send(known, row, enc, os.urandom(enc.key_bytes))
    sealed = sealing.seal(enc, sent.cek, os.urandom(enc.iv_bytes), _MESSAGE, _MESSAGE)
    yield _Message(enc, sent, sealed, is_good=True)
    if isinstance(row, KeyAgreement) and row.wrapping:
        return  # how a bad CEK fails has been tried with ``wrapping`` itself
    yield _Message(other_enc, sent, sealed, is_good=False)
    if row.transports:
        odd = peer.send(known, row, enc, os.urandom(_ODD_BYTES))
        yield _Message(enc, odd, sealed, is_good=False)
        bad_key = bytes(len(sent.encrypted_key))
        yield _Message(enc, sent._replace(encrypted_key=bad_key), sealed, is_good=False)


def _receive(keys: Keys, transport: Transport, message: _Message) -> None:
    """Raise ``HsmError`` unless the token makes of a message what is to be made of it."""
    enc, sent, sealed, is_good = message
    with transport.unwrapped(keys, sent.encrypted_key, sent.agreement) as unwrapped:
        is_recovered = unwrapped.outcome is Outcome.RECOVERED
        # What is agreed on is always something, and the wrong thing does not open it.
        require(is_recovered is (is_good or not transport.row.transports))
        require(content.opens(unwrapped.cek, enc, sealed, _MESSAGE, _MESSAGE) is is_good)
