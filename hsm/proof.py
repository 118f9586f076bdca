"""Proofs that a token performs an algorithm: tried with session objects, believed when right.

The mechanism list of a token says what it would like to do; only a trial says what it does.
"""

import os
from functools import singledispatchmethod
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pkcs11 import Object

from hsm import content, mac, signing
from hsm.algorithms import (
    CONTENT_ENCRYPTIONS,
    ML_DSA,
    RSA,
    Algorithm,
    ContentEncryption,
    KeyManagement,
    KeySpec,
    MacAlgorithm,
    SignatureAlgorithm,
)
from hsm.canary import Canary
from hsm.content import IV_BYTES, TAG_BYTES, Sealed
from hsm.errors import DecryptionFailed, HsmError
from hsm.handles import Handle, Key, bind, temporary
from hsm.material import PublicKey
from hsm.session import Session
from hsm.templates import Templates
from hsm.wrapping import Outcome, Path, encrypted_for

_MESSAGE: Final = b"jose-hsm"
_OTHER_MESSAGE: Final = b"jose-hsn"
_RSA_BITS: Final = 2048
_ODD_BYTES: Final = 17


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
    def attempt(self, row: Algorithm, session: Session) -> None:
        """Perform ``row`` on ``session`` and check the result."""
        raise NotImplementedError

    @attempt.register
    def _signature(self, row: SignatureAlgorithm, session: Session) -> None:
        public, private = self._pair(session, row)
        signature = signing.sign(private, row, _MESSAGE, _numbers(public))

        def verifies(message: bytes) -> bool:
            return signing.verify(public, row, message, signature, self._canary)

        _require(verifies(_MESSAGE) and not verifies(_OTHER_MESSAGE))

    @attempt.register
    def _mac(self, row: MacAlgorithm, session: Session) -> None:
        with temporary(self._secret(session, row, 8 * row.mac_bytes)) as key:
            code = mac.compute(key, row, _MESSAGE)
            _require(mac.verify(key, row, _MESSAGE, code))
            _require(not mac.verify(key, row, _OTHER_MESSAGE, code))

    @attempt.register
    def _content(self, row: ContentEncryption, session: Session) -> None:
        with temporary(self._secret(session, row, 8 * row.key_bytes)) as key:
            sealed = content.encrypt(key, _MESSAGE, _MESSAGE)

            def opens(aad: bytes) -> bool:
                return _opens(key, sealed, aad, self._canary)

            _require(opens(_MESSAGE) and not opens(_OTHER_MESSAGE))

    def attempt_transport(self, row: KeyManagement, path: Path, session: Session) -> None:
        """Exchange CEKs on ``path``: with itself, with a peer in software, and three bad ones."""
        public, private = self._pair(session, row)
        enc, other_enc = CONTENT_ENCRYPTIONS["A256GCM"], CONTENT_ENCRYPTIONS["A128GCM"]
        with path.wrapped(public, row, enc) as wrapped:
            sealed = content.encrypt(wrapped.cek, _MESSAGE, _MESSAGE)
        cek, peer_sealed = _peer(enc)
        encrypted_key = encrypted_for(public, row, cek)
        odd_key = encrypted_for(public, row, cek[:_ODD_BYTES])
        bad_key = bytes(len(encrypted_key))
        for attempt_enc, attempt_key, attempt_sealed, is_good in (
            (enc, wrapped.encrypted_key, sealed, True),
            (enc, encrypted_key, peer_sealed, True),
            (other_enc, encrypted_key, peer_sealed, False),
            (enc, odd_key, peer_sealed, False),
            (enc, bad_key, peer_sealed, False),
        ):
            with path.unwrapped(private, row, attempt_enc, attempt_key) as unwrapped:
                _require((unwrapped.outcome is Outcome.RECOVERED) is is_good)
                is_open = _opens(unwrapped.cek, attempt_sealed, _MESSAGE, self._canary)
                _require(is_open is is_good)

    def close(self) -> None:
        """Destroy the pairs."""
        for made in self._made:
            self._anchor.destroy(made)

    def _secret(self, session: Session, row: Algorithm, bits: int) -> Key:
        made = session.generate_key(
            row.kind.key_type, bits, **self._templates.secret_generation([row])
        )
        return bind(session, made)

    def _pair(self, session: Session, row: Algorithm) -> tuple[Key, Key]:
        crv = row.curve.crv if row.curve else None
        alg = row.name if row.kind is ML_DSA else None
        spec = KeySpec(kty=row.kind.ktys[0], alg=alg, crv=crv)
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


def _peer(enc: ContentEncryption) -> tuple[bytes, Sealed]:
    """Return a CEK that somebody else has made, and a message under it."""
    cek, iv = os.urandom(enc.key_bytes), os.urandom(IV_BYTES)
    output = AESGCM(cek).encrypt(iv, _MESSAGE, _MESSAGE)
    return cek, Sealed(iv, output[:-TAG_BYTES], output[-TAG_BYTES:])


def _opens(cek: Key, sealed: Sealed, aad: bytes, canary: Canary) -> bool:
    try:
        return content.decrypt(cek, sealed, aad, canary) == _MESSAGE
    except DecryptionFailed:
        return False


def _require(is_right: bool) -> None:
    if not is_right:
        raise HsmError
