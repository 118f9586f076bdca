"""What a token does for us, by kid and JOSE names: the whole of ``hsm`` as ``app`` sees it."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

from pkcs11 import PKCS11Error
from pkcs11.exceptions import FunctionFailed

from hsm.algorithms.families import KeyManagement
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import RSA
from hsm.algorithms.tables import CONTENT_ENCRYPTIONS, DIRECT, KEY_MANAGEMENTS, MACS, SIGNATURES
from hsm.cryptoki.faults import Fault, fault_of
from hsm.cryptoki.handles import Key
from hsm.cryptoki.material import AgreementKey, PrivateKey, PublicKey
from hsm.cryptoki.module import Product
from hsm.cryptoki.objects import PRIVATE, PUBLIC, Half, halves_of, secret, secrets_of
from hsm.cryptoki.pool import Sessions
from hsm.cryptoki.session import Session
from hsm.errors import CryptoFailure, DecryptionFailed, KeyNotFound, TokenUnavailable
from hsm.examination import adoption
from hsm.examination.adoption import Adoptable
from hsm.life.connection import ATTEMPTS, Connection
from hsm.life.rsa_lane import Generations
from hsm.life.state import State
from hsm.life.token import Offer, Token
from hsm.operations import content, mac, signing
from hsm.operations.cek import Outcome
from hsm.operations.content import Cek, Sealed
from hsm.operations.ecdh import Agreement
from hsm.operations.timing import FailureDelay
from hsm.settings import Settings
from hsm.storage.token_store import Halves

Result = TypeVar("Result")

_NOTHING: Final = Agreement()
_PROBE: Final = b"jose-hsm"
_CREATION_ATTEMPTS: Final = 4


class Encrypted(NamedTuple):
    """The parts of a JWE: ``encrypted_key`` is empty, and there is no ``epk``, where none is."""

    encrypted_key: bytes
    sealed: Sealed
    epk: AgreementKey | None = None


class Hsm:
    """Operations on keys named by kid.

    All raise ``TokenUnavailable`` if the token cannot answer now, ``KeyNotFound`` if it has no such
    key, ``CryptoFailure`` if it does not permit the operation with that key. Which algorithm fits
    which key is the caller's to check; the token enforces it once more.
    """

    def __init__(self, settings: Settings) -> None:
        self._connection = Connection(settings)
        self._generations = Generations(settings.generations)
        self._failure_delay = FailureDelay()

    def start(self) -> None:
        """Connect to the token in the background. Call after fork, never before."""
        self._connection.start()

    @property
    def reason(self) -> str | None:
        """Why the token is not available, or ``None`` while it is."""
        return self.state.reason or None

    @property
    def state(self) -> State:
        """Where the token is in its life; never asks it."""
        return self._connection.state

    @property
    def product(self) -> Product | None:
        """What library and token last said of themselves; ``None`` before. Never asks them."""
        return self._connection.product

    @property
    def sessions(self) -> Sessions:
        """How many sessions operations share, and how many are lent now."""
        return self._connection.sessions

    def offers(self) -> Mapping[str, Offer]:
        """Return what the token has proven for each algorithm; ``TokenUnavailable`` before."""
        return self._connection.token.offers

    @contextmanager
    def together(self) -> Iterator[None]:
        """Take the operations of this thread in one ``with`` block as one batch.

        They share a session, which others get in between, and what fails to decrypt is held back
        at the end. Each has a deadline of its own, as ever.
        """
        with self._failure_delay.together(), self._connection.sharing():
            yield

    def generate(self, kid: UUID, spec: KeySpec) -> PublicKey | None:
        """Make a key in the token; return the public half of a pair."""

        def generate() -> PublicKey | None:
            return self._create(
                kid,
                spec,
                lambda token, session: token.keystore.generate(session, kid, spec),
                takes_seconds=takes_seconds,
            )

        takes_seconds = spec.kind is RSA
        return self._generations.run(generate) if takes_seconds else generate()

    def import_secret(self, kid: UUID, spec: KeySpec, value: bytes) -> None:
        """Create a secret key from ``value``, which the caller has checked."""
        self._create(
            kid,
            spec,
            lambda token, session: token.keystore.import_secret(session, kid, spec, value),
        )

    def import_pair(self, kid: UUID, spec: KeySpec, key: PrivateKey) -> PublicKey:
        """Create both halves of ``key``, which the caller has checked; return the public one."""
        return self._create(
            kid, spec, lambda token, session: token.keystore.import_pair(session, kid, spec, key)
        )

    def works(self, kid: UUID, spec: KeySpec) -> bool:
        """Tell whether a new key survives a round trip with its first offered algorithm."""
        offers = self.offers()
        name = next(
            row.name for row in spec.algorithms if offers[row.name].refusal(spec.crv) is None
        )
        try:
            return self._round_trip(kid, name)
        except (CryptoFailure, DecryptionFailed):
            return False
        except KeyNotFound:
            raise TokenUnavailable("the token did not keep the key") from None

    def destroy(self, kid: UUID, spec: KeySpec) -> None:
        """Destroy every object of ``kid``; absence is success."""
        self._connection.perform(lambda token, session: token.keystore.destroy(session, kid, spec))

    def inventory(self) -> Mapping[UUID, Halves]:
        """Return the kids of all objects on the token that carry our label, with their halves."""
        return self._connection.perform(
            lambda token, session: token.keystore.inventory(session), seconds=math.inf
        )

    def differences(self, specs: Mapping[UUID, KeySpec]) -> tuple[set[UUID], set[UUID]]:
        """Compare all keys of the token that carry our label with those that there should be.

        Returns the kids of ``specs`` that are not, or not wholly, on the token, and the kids on
        the token that are not in ``specs``.
        """
        found = self.inventory()
        missing = {
            kid for kid, spec in specs.items() if found.get(kid) != frozenset(halves_of(spec))
        }
        return missing, found.keys() - specs.keys()

    def adoptable(self, *, key_id: bytes | None, label: str | None) -> Adoptable:
        """Return what the one key of that CKA_ID and label, made by others, has proven to do.

        Raises ``CryptoFailure`` if there are several, or if it can do nothing for us.
        """
        return self._connection.perform(
            lambda token, session: adoption.prove(
                token, session, adoption.find(session, key_id=key_id, label=label)
            )
        )

    def rename(self, kid: UUID, *, key_id: bytes | None, label: str | None) -> None:
        """Name that key ``kid`` from now on; raise ``CryptoFailure`` if the token refuses."""
        self._connection.perform(
            lambda _token, session: adoption.rename(
                adoption.find(session, key_id=key_id, label=label), kid
            )
        )

    def sign(self, kid: UUID, alg: str, signing_input: bytes) -> bytes:
        """Return the raw JWS signature: R‖S for ECDSA (RFC 7518 §3.4), never DER."""
        row = SIGNATURES[alg]

        def sign(token: Token, key: Key) -> bytes:
            return signing.sign(key, row, signing_input, token.keystore.public(key.lent, kid))

        return self._with_key(kid, PRIVATE, alg, sign)

    def verify(self, kid: UUID, alg: str, signing_input: bytes, signature: bytes) -> bool:
        """Tell whether ``signature`` is one; a malformed one is just not."""
        row = SIGNATURES[alg]
        return self._with_key(
            kid,
            PUBLIC,
            alg,
            lambda token, key: signing.verify(key, row, signing_input, signature, token.canary),
        )

    def mac(self, kid: UUID, alg: str, data: bytes) -> bytes:
        """Return the MAC of ``data``, as long as the hash."""
        row = MACS[alg]

        def compute(token: Token, key: Key) -> bytes:
            return (mac.compute_twice if token.results_checked else mac.compute)(key, row, data)

        return self._with_key(kid, secret(row.kind), alg, compute)

    def verify_mac(self, kid: UUID, alg: str, data: bytes, code: bytes) -> bool:
        """Tell whether ``code`` is the MAC of ``data``; of a wrong length it is just not."""
        row = MACS[alg]
        return self._with_key(
            kid, secret(row.kind), alg, lambda _token, key: mac.verify(key, row, data, code)
        )

    def encrypt(  # noqa: PLR0913, PLR0917  # the parts of a JWE
        self,
        kid: UUID,
        alg: str,
        enc: str,
        plaintext: bytes,
        aad: Callable[[AgreementKey | None], bytes],
        said: Agreement = _NOTHING,
    ) -> Encrypted:
        """Return the parts of a JWE (RFC 7516 §5.1); ``aad`` gets its ``epk``, if there is one."""
        enc_row = CONTENT_ENCRYPTIONS[enc]
        if alg == DIRECT:

            def seal(token: Token, cek: Cek) -> Encrypted:
                authenticated = aad(None)
                sealed = content.encrypt(cek, enc_row, plaintext, authenticated)
                if token.results_checked:
                    content.require_opens(
                        cek, enc_row, sealed, plaintext, authenticated, token.canary
                    )
                return Encrypted(b"", sealed)

            return self._with_keys(kid, secrets_of(enc_row), enc, seal)
        row = KEY_MANAGEMENTS[alg]
        encrypting, decrypting = _halves(row)

        def encrypt(token: Token, key: Key) -> Encrypted:
            path = token.path(alg, enc)
            with path.wrapped(key, row, enc_row, said) as wrapped:
                authenticated = aad(wrapped.epk)
                sealed = content.encrypt(wrapped.cek, enc_row, plaintext, authenticated)
            made = Encrypted(wrapped.encrypted_key, sealed, wrapped.epk)
            if token.results_checked:
                private = token.keystore.load(key.lent, kid, decrypting)
                to_us = said._replace(epk=made.epk)
                with path.unwrapped(private, row, enc_row, made.encrypted_key, to_us) as unwrapped:
                    content.require_opens(
                        unwrapped.cek, enc_row, sealed, plaintext, authenticated, token.canary
                    )
            return made

        return self._with_key(kid, encrypting, alg, encrypt)

    def decrypt(  # noqa: PLR0913, PLR0917  # the parts of a JWE
        self,
        kid: UUID,
        alg: str,
        enc: str,
        encrypted_key: bytes,
        sealed: Sealed,
        aad: bytes,
        said: Agreement = _NOTHING,
    ) -> bytes:
        """Return the plaintext (RFC 7516 §5.2).

        Raises ``DecryptionFailed``, the same for every cause: whatever is wrong with
        ``encrypted_key``, a random CEK goes on in its place and fails at the tag (§11.5).
        """
        enc_row = CONTENT_ENCRYPTIONS[enc]
        if alg == DIRECT:
            return self._with_keys(
                kid,
                secrets_of(enc_row),
                enc,
                lambda token, cek: content.decrypt(cek, enc_row, sealed, aad, token.canary),
            )
        row = KEY_MANAGEMENTS[alg]

        def decrypt(token: Token, key: Key) -> bytes:
            path = token.path(alg, enc)
            with path.unwrapped(key, row, enc_row, encrypted_key, said) as unwrapped:
                return content.decrypt(unwrapped.cek, enc_row, sealed, aad, token.canary)

        with self._failure_delay.of(encrypted_key):
            return self._with_key(kid, _halves(row)[1], alg, decrypt)

    def unwrap(  # noqa: PLR0913, PLR0917  # the parts of a JWE, and what becomes of it
        self,
        kid: UUID,
        alg: str,
        enc: str,
        encrypted_key: bytes,
        new_kid: UUID,
        said: Agreement = _NOTHING,
    ) -> None:
        """Keep the CEK of ``encrypted_key`` in the token as the key ``new_kid``.

        Raises ``DecryptionFailed`` if the padding is bad, ``CryptoFailure`` if a CEK came out
        that is not of the size that ``enc`` takes.
        """
        row, enc_row = KEY_MANAGEMENTS[alg], CONTENT_ENCRYPTIONS[enc]
        tries = itertools.count()

        def unwrap(token: Token, key: Key) -> None:
            if next(tries):  # the one before may have failed halfway
                token.keystore.destroy(key.lent, new_kid, KeySpec(kty="oct", alg=enc))
            path = token.path(alg, enc)
            with path.unwrapped(key, row, enc_row, encrypted_key, said) as unwrapped:
                if unwrapped.outcome is Outcome.REJECTED:
                    _require_canary(token, key.lent)
                    raise DecryptionFailed
                if unwrapped.outcome is Outcome.WRONG_SIZE:
                    raise CryptoFailure(f"The unwrapped key is not of the size of {enc}")
                token.keystore.store(new_kid, enc_row, path.kek(key.lent), unwrapped.cek)

        self._with_key(kid, _halves(row)[1], alg, unwrap)

    def _round_trip(self, kid: UUID, name: str) -> bool:
        if name in SIGNATURES:
            return self.verify(kid, name, _PROBE, self.sign(kid, name, _PROBE))
        if name in MACS:
            return self.verify_mac(kid, name, _PROBE, self.mac(kid, name, _PROBE))
        alg, enc = (name, "A256GCM") if name in KEY_MANAGEMENTS else (DIRECT, name)
        made = self.encrypt(kid, alg, enc, _PROBE, lambda _epk: _PROBE)
        said = Agreement(made.epk)
        opened = self.decrypt(kid, alg, enc, made.encrypted_key, made.sealed, _PROBE, said)
        return opened == _PROBE

    def _create(
        self,
        kid: UUID,
        spec: KeySpec,
        create: Callable[[Token, Session], Result],
        *,
        takes_seconds: bool = False,
    ) -> Result:
        tries = itertools.count(1)

        def run(token: Token, session: Session) -> Result:
            number = next(tries)
            if number > 1:  # the one before may have failed halfway
                token.keystore.destroy(session, kid, spec)
            try:
                return create(token, session)
            except (PKCS11Error, ValueError) as error:
                if isinstance(error, PKCS11Error) and fault_of(error) is not Fault.BUG:
                    raise
                if number == _CREATION_ATTEMPTS:
                    raise CryptoFailure("The token does not accept this key") from error
                # While its files change, SoftHSM finds fault with good templates, and shows objects
                # without their attributes.
                raise FunctionFailed from error

        return self._connection.perform(
            run, attempts=_CREATION_ATTEMPTS, takes_seconds=takes_seconds
        )

    def _with_key(
        self,
        kid: UUID,
        half: Half,
        name: str,
        operation: Callable[[Token, Key], Result],
    ) -> Result:
        return self._with_keys(kid, (half,), name, lambda token, keys: operation(token, *keys))

    def _with_keys(
        self,
        kid: UUID,
        halves: tuple[Half, ...],
        name: str,
        operation: Callable[[Token, tuple[Key, ...]], Result],
    ) -> Result:
        tries = itertools.count(1)

        def run(token: Token, session: Session) -> Result:
            is_last = next(tries) == ATTEMPTS
            token.require_offered(name)
            try:
                keys = tuple(token.keystore.load(session, kid, half) for half in halves)
                return operation(token, keys)
            except PKCS11Error as error:
                if fault_of(error) is not Fault.KEY_GONE:
                    raise
                token.keystore.forget(kid)
                if not is_last:
                    raise
                # It is being destroyed and still found here, or it is the key-encryption key.
                self._connection.suspect()
                raise KeyNotFound from error

        return self._connection.perform(run)


def _halves(row: KeyManagement) -> tuple[Half, Half]:
    """Return the halves of a key that encrypt and decrypt."""
    return (PUBLIC, PRIVATE) if row.kind.is_pair else (secret(row.kind), secret(row.kind))


def is_valid(public: PublicKey, alg: str, signing_input: bytes, signature: bytes) -> bool:
    """Tell, in software and without a token, whether ``signature`` is one of ``public``."""
    return signing.is_valid(public, SIGNATURES[alg], signing_input, signature)


def _require_canary(token: Token, session: Session) -> None:
    """Raise ``TokenUnavailable`` if the padding may be good and the token broken."""
    if not token.canary.sings(session):
        raise TokenUnavailable("the token does not answer")
