"""What a token does for us, by ``KeyRef`` and JOSE names: all of ``hsm`` that ``app`` sees."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import RSA
from hsm.algorithms.tables import CONTENT_ENCRYPTIONS, DIRECT, KEY_MANAGEMENTS, MACS
from hsm.cryptoki import objects
from hsm.cryptoki.module import Product
from hsm.cryptoki.objects import PUBLIC, KeyObject, is_whole, objects_of, secrets_of
from hsm.cryptoki.pool import Sessions
from hsm.errors import CryptoFailure, DecryptionFailed, KeyNotFound, TokenUnavailable
from hsm.examination import adoption
from hsm.examination.adoption import Adoptable, OtherName
from hsm.importing.wrapped_imports import WrappedImports
from hsm.life.connection import Connection
from hsm.life.offer import Offer, first_offered
from hsm.life.rsa_lane import Generations
from hsm.life.series import require_destroyable, series, signing_with
from hsm.life.several import Rewrapping, SeveralUse
from hsm.life.state import State
from hsm.life.token import inventory, round_trip
from hsm.life.work import Creation, Destruction, Errand, TransportUse, Trial, Unwrapping, Use, keep
from hsm.messages import (
    NO_AGREEMENT,
    OWN_KEY,
    Agreement,
    Encrypted,
    KeyRef,
    Made,
    Received,
    Recipient,
    Sealed,
)
from hsm.operations import content, jwe, mac, signing
from hsm.operations.jwe import Aad
from hsm.operations.timing import FailureDelay
from hsm.settings import Settings
from hsm.storage import owner
from hsm.storage.keeping import Keeping
from hsm.storage.store import Material

Result = TypeVar("Result")

_PROBE: Final = b"jose-hsm"
_OWN_ALG: Final = "HS256"


class Hsm:
    """Operations on keys named by ``KeyRef``.

    All raise ``TokenUnavailable`` if the token cannot answer now, ``KeyNotFound`` if it has no such
    key, ``CryptoFailure`` if it does not permit the operation with that key. The caller checks
    which algorithm fits which key; the token enforces it once more.
    """

    def __init__(self, settings: Settings) -> None:
        self._connection = Connection(settings)
        self._generations = Generations(settings.generations)
        self._failure_delay = FailureDelay(settings.observer)
        self._are_results_checked = settings.results_checked
        self.imports: Final = WrappedImports(self._connection, self._failure_delay)
        self.keeping: Final = Keeping(self._connection)

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
        """What library and token last reported of themselves; ``None`` before. Never asks them."""
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
        """Run this thread's operations inside the ``with`` block as one batch.

        They share a session, which others get in between, and failed decryptions are delayed
        together at the end. Each operation keeps its own deadline.
        """
        with self._failure_delay.together(), self._connection.sharing():
            yield

    def each(self, verb: str, ref: KeyRef, name: str, data: Iterable[Any], done: list[Any]) -> None:
        """Do ``verb``, a method of this class, with each of ``data``; see ``Series``."""
        is_checked = self._are_results_checked
        self._connection.perform(series(verb, ref, name, data, done, is_checked=is_checked))

    def generate(self, ref: KeyRef) -> Made:
        """Make a key in the token."""
        if ref.spec.kind is RSA:
            creation = Creation(ref=ref, takes_seconds=True)
            return self._generations.run(partial(self._connection.perform, creation))
        return self._connection.perform(Creation(ref=ref))

    def import_key(self, ref: KeyRef, material: Material) -> Made:
        """Create a key from ``material``, which the caller has checked."""
        return self._connection.perform(Creation(ref=ref, material=material))

    def in_lane(self, work: Callable[[], Result]) -> Result:
        """Run ``work``, which takes a processor for long, in turn with the generations of RSA."""
        return self._generations.run(work)

    def works(self, ref: KeyRef) -> bool:
        """Tell whether a new key survives a round trip with its first offered algorithm."""
        spec, row = ref.spec, first_offered(ref.spec, self.offers())
        verb, arguments = round_trip, (row, _PROBE)
        trial = Trial(
            ref=ref, objects=objects_of(spec), name=row.name, verb=verb, arguments=arguments
        )
        try:
            return self._connection.perform(trial)
        except (CryptoFailure, DecryptionFailed):
            return False
        except KeyNotFound:
            raise TokenUnavailable("the token did not keep the key") from None

    def require_destroyable(self, ref: KeyRef) -> None:
        """Raise ``CryptoFailure`` if the token destroys ``ref`` for nobody (CKA_DESTROYABLE)."""
        self._connection.perform(Errand(verb=partial(require_destroyable, ref=ref)))

    def destroy(self, ref: KeyRef) -> None:
        """Destroy every object of ``ref``; absence is success."""
        self._connection.perform(Destruction(ref=ref))

    @property
    def registry(self) -> str:
        """What registry the token belonged to when it was opened; empty if it said none."""
        _ = self._connection.token  # wait for it, or raise
        return self._connection.owner

    def assign_to(self, registry: str) -> bool:
        """Write down on the token what registry it belongs to; return whether it permits that."""
        is_kept = self._connection.perform(
            Errand(verb=lambda _token, session: owner.assign(session, registry))
        )
        if is_kept:
            self._connection.owner = registry
        return is_kept

    def inventory(self) -> Mapping[UUID, frozenset[KeyObject]]:
        """Return the kids of all objects on the token that carry our label, with their objects."""
        return self._connection.perform(Errand(verb=inventory, deadline_seconds=math.inf))

    def differences(self, specs: Mapping[UUID, KeySpec]) -> tuple[set[UUID], set[UUID]]:
        """Compare all keys of the token that carry our label with those that there should be.

        Returns the kids of ``specs`` that are not, or not wholly, on the token, and the kids on
        the token that are not in ``specs``.
        """
        found = self.inventory()
        missing = {kid for kid, spec in specs.items() if not is_whole(spec, found.get(kid))}
        return missing, found.keys() - specs.keys()

    @property
    def places(self) -> Mapping[str, str]:
        """How a URI says where the token is (RFC 7512 §2.3): of library, slot and token."""
        _ = self._connection.token  # wait for it, or raise
        return self._connection.places

    def adoptable(self, name: OtherName) -> Adoptable:
        """Return what the one key of that name, made by others, has proven to do.

        Raises ``CryptoFailure`` if there are several, or if it can do nothing for us.
        """
        return self._connection.perform(Errand(verb=partial(adoption.prove, name=name)))

    def rename(self, ref: KeyRef, name: OtherName, keep: Callable[[], object]) -> None:
        """Make that key ``ref`` if ``keep`` can; raise ``CryptoFailure`` if the token refuses."""
        verb = partial(adoption.rename, ref=ref, name=name, keep=keep)
        self._connection.perform(Errand(verb=verb))

    def sign(self, ref: KeyRef, alg: str, signing_input: bytes) -> bytes:
        """Return the raw JWS signature: R‖S for ECDSA (RFC 7518 §3.4), never DER."""
        return self._connection.perform(signing_with(signing.sign, ref, alg, signing_input))

    def sign_digest(self, ref: KeyRef, alg: str, digest: bytes) -> bytes:
        """Return the signature of what has the ``digest``, as long as the hash of ``alg``."""
        return self._connection.perform(signing_with(signing.sign_digest, ref, alg, digest))

    def random(self, size_bytes: int) -> bytes:
        """Return random bytes of the token."""
        return self._connection.perform(
            Errand(verb=lambda _token, session: session.generate_random(8 * size_bytes))
        )

    def verify(self, ref: KeyRef, alg: str, signing_input: bytes, signature: bytes) -> bool:
        """Tell whether ``signature`` is one; a malformed one is just not."""
        arguments = (signing_input, signature)
        return self._connection.perform(
            Use(ref=ref, objects=(PUBLIC,), name=alg, verb=signing.verify, arguments=arguments)
        )

    def mac(self, ref: KeyRef, alg: str, data: bytes) -> bytes:
        """Return the MAC of ``data``, as long as the hash."""
        compute = mac.compute_twice if self._are_results_checked else mac.compute
        objects = secrets_of(MACS[alg])
        return self._connection.perform(
            Use(ref=ref, objects=objects, name=alg, verb=compute, arguments=(data,))
        )

    def verify_mac(self, ref: KeyRef, alg: str, data: bytes, code: bytes) -> bool:
        """Tell whether ``code`` is the MAC of ``data``; of a wrong length it is just not."""
        objects = secrets_of(MACS[alg])
        return self._connection.perform(
            Use(ref=ref, objects=objects, name=alg, verb=mac.verify, arguments=(data, code))
        )

    def own_mac(self, data: bytes) -> bytes:
        """Return HMAC-SHA-256 of ``data`` under a key of the service's own, which no caller has.

        The key is made when there is none; the caller sees to it that he is alone then.
        """
        try:
            return self.mac(OWN_KEY, _OWN_ALG, data)
        except KeyNotFound:
            self.generate(OWN_KEY)
            return self.mac(OWN_KEY, _OWN_ALG, data)

    def is_own_mac(self, data: bytes, code: bytes) -> bool:
        """Tell whether ``code`` is that MAC of ``data``; on a token without the key it is not."""
        try:
            return self.verify_mac(OWN_KEY, _OWN_ALG, data, code)
        except KeyNotFound:
            return False

    def encrypt(  # noqa: PLR0913, PLR0917  # the parts of a JWE
        self,
        ref: KeyRef,
        alg: str,
        enc: str,
        plaintext: bytes,
        aad: Aad,
        agreement: Agreement = NO_AGREEMENT,
    ) -> Encrypted:
        """Return the parts of a JWE (RFC 7516 §5.1); ``aad`` gets what its header has to hold."""
        is_checked = self._are_results_checked
        if alg == DIRECT:
            use = _direct(ref, enc, jwe.seal_directly, plaintext, aad, is_checked)
            return self._connection.perform(use)
        return self._connection.perform(
            TransportUse(
                ref=ref,
                objects=objects.encrypting(KEY_MANAGEMENTS[alg], is_checked=is_checked),
                name=alg,
                enc=enc,
                verb=jwe.seal,
                arguments=(plaintext, aad, agreement, is_checked),
            )
        )

    def encrypt_for_all(
        self, recipients: Sequence[Recipient], enc: str, plaintext: bytes, aad: bytes
    ) -> list[Encrypted]:
        """Return the same content for each recipient (RFC 7516 §7.2.1), of whom we hold a key."""
        is_checked = self._are_results_checked
        use = SeveralUse(to=recipients, enc=enc, arguments=(plaintext, aad), is_checked=is_checked)
        return self._connection.perform(use)

    def decrypt(  # noqa: PLR0913, PLR0917  # the parts of a JWE
        self,
        ref: KeyRef,
        alg: str,
        enc: str,
        encrypted_key: bytes,
        sealed: Sealed,
        aad: bytes,
        agreement: Agreement = NO_AGREEMENT,
    ) -> bytes:
        """Return the plaintext (RFC 7516 §5.2).

        Raises ``DecryptionFailed``, the same for every cause: whatever is wrong with
        ``encrypted_key``, a random CEK goes on in its place and fails at the tag (§11.5).
        """
        if alg == DIRECT:
            return self._connection.perform(_direct(ref, enc, content.unseal, sealed, aad))
        with self._failure_delay.of(encrypted_key):
            return self._connection.perform(
                TransportUse(
                    ref=ref,
                    objects=objects.decrypting(KEY_MANAGEMENTS[alg]),
                    name=alg,
                    enc=enc,
                    verb=jwe.unseal,
                    arguments=(encrypted_key, sealed, aad, agreement),
                )
            )

    def rewrap(self, held: Recipient, to: Recipient, received: Received) -> Encrypted:
        """Return the CEK of what ``held`` opens, wrapped for ``to``; raise as ``decrypt`` does."""
        is_checked = self._are_results_checked
        work = Rewrapping(held=held, to=to, received=received, is_checked=is_checked)
        with self._failure_delay.of(received.encrypted_key):
            return self._connection.perform(work)

    def unwrap(  # noqa: PLR0913, PLR0917  # the parts of a JWE, and what becomes of it
        self,
        ref: KeyRef,
        alg: str,
        enc: str,
        encrypted_key: bytes,
        new: KeyRef,
        agreement: Agreement = NO_AGREEMENT,
    ) -> Made:
        """Keep the CEK of ``encrypted_key`` in the token as the key ``new``.

        Raises ``DecryptionFailed`` if the padding is bad, ``CryptoFailure`` if a CEK came out
        that is not of the size that ``enc`` takes.
        """
        return self._connection.perform(
            Unwrapping(
                ref=ref,
                objects=objects.decrypting(KEY_MANAGEMENTS[alg]),
                name=alg,
                enc=enc,
                new=new,
                verb=keep,
                arguments=(encrypted_key, agreement),
            )
        )


def _direct(ref: KeyRef, enc: str, verb: Callable[..., Result], *arguments: Any) -> Use[Result]:
    """Use the key itself as the CEK (RFC 7518 §4.5)."""
    objects = secrets_of(CONTENT_ENCRYPTIONS[enc])
    return Use(ref=ref, objects=objects, name=enc, verb=verb, arguments=arguments)
