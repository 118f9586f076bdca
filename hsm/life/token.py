"""One token during one epoch: what it holds, and what it has proven to be able to do."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from types import MappingProxyType
from typing import Final
from uuid import UUID

from hsm.algorithms.families import (
    Algorithm,
    CekPathName,
    ContentEncryption,
    Family,
    KeyManagement,
)
from hsm.algorithms.kinds import Curve
from hsm.algorithms.tables import (
    ALGORITHMS,
    CONTENT_FAMILIES,
    KEY_MANAGEMENTS,
)
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.canary import Canary
from hsm.cryptoki.handles import Handle
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.objects import KeyObject
from hsm.cryptoki.pool import SessionPool
from hsm.cryptoki.session import Session
from hsm.errors import UnsupportedAlgorithm
from hsm.importing.imports import Imports, ImportsOfToken
from hsm.life.offer import Offer, offer_of
from hsm.life.proof import Proof
from hsm.life.proof_cache import ProofCache
from hsm.life.refusal import refusal_of
from hsm.life.sizes import most_bytes
from hsm.messages import Storage
from hsm.observer import Observer
from hsm.operations import jwe
from hsm.operations.cek import CekPath, generate_kek
from hsm.operations.jwe import CEK_PATHS, Transport
from hsm.operations.round_trips import ROUND_TRIPS
from hsm.settings import Settings
from hsm.storage.keepable import NOTHING_KEPT, Keepable
from hsm.storage.store import Store
from hsm.storage.stores import stores_of
from hsm.waiting import Resting

logger = logging.getLogger(__name__)

FORBIDDEN: Final = "its CEKs would pass through the process, which is forbidden"

_TRIED_ENC: Final = "A256GCM"
Attempt = Callable[[Curve | None, Session], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is decided outside of the token.

    ``plaintext_bytes`` is what callers may send at most;
    ``process_allowed`` lets a CEK pass through the process; ``opted_in`` names those opt-in
    algorithms that are offered; ``announce_change`` makes the library look anew for what other
    processes have stored. Of wrapped keys ``unwrapped_keys`` are session objects at a time.
    ``resting`` is how to wait for others.
    """

    plaintext_bytes: int
    fips: bool
    process_allowed: bool
    opted_in: frozenset[str]
    announce_change: Callable[[], None]
    unwrapped_keys: int
    observer: Observer
    resting: Resting = nullcontext

    @classmethod
    def of(
        cls, settings: Settings, announce_change: Callable[[], None], resting: Resting = nullcontext
    ) -> "Policy":
        """Return what ``settings`` decide."""
        return cls(
            plaintext_bytes=settings.plaintext_bytes,
            fips=settings.fips,
            process_allowed=settings.process_allowed,
            opted_in=settings.opted_in,
            announce_change=announce_change,
            unwrapped_keys=settings.unwrapped_keys,
            observer=settings.observer,
            resting=resting,
        )

    def permits(self, path: CekPath) -> bool:
        """Tell whether CEKs may take ``path``."""
        return path.residency == "token" or self.process_allowed

    def refusal(self, row: Algorithm, curve: Curve | None) -> str | None:
        """Return why ``row`` is not to be tried with keys on ``curve``."""
        if self.fips and not (row.fips and (curve is None or curve.fips)):
            return "not offered in FIPS mode"
        if row.is_opt_in and row.name not in self.opted_in:
            return "switched off"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What operations need of the token; made anew, with all its handles, in each epoch.

    ``rows`` are all algorithms, by name, with the mechanisms by which the token performs them.
    """

    pool: SessionPool
    templates: Templates
    canary: Canary
    stores: Mapping[Storage, Store]
    offers: Mapping[str, Offer]
    rows: Mapping[str, Algorithm]
    paths: Mapping[tuple[str, str], CekPath]
    imports: ImportsOfToken = field(default_factory=lambda: ImportsOfToken(Imports))
    keepable: Keepable = NOTHING_KEPT

    def is_well(self, session: Session, *, finds: bool) -> bool:
        """Tell whether keys are used, the key-encryption key too, and whether they are found.

        A search costs SoftHSM the more the more keys there are; without ``finds`` there is none.
        All paths share the key-encryption key, so that one of them tells.
        """
        first = list(self.paths.values())[:1]
        return (
            (not finds or self.canary.is_found(session))
            and self.canary.works(session)
            and all(path.works(session) for path in first)
        )

    def transport(self, alg: str, enc: str) -> Transport:
        """Return how CEKs of ``enc`` travel with ``alg``; raise ``UnsupportedAlgorithm``."""
        self.require_offered(enc)
        reason = self.offers[alg].with_enc(enc).reason
        if reason is not None:
            raise UnsupportedAlgorithm.not_offered(f"{alg} with {enc}", reason)
        return Transport(self.paths[alg, enc], KEY_MANAGEMENTS[alg], self.content_encryption(enc))

    def content_encryption(self, enc: str) -> ContentEncryption:
        """Return ``enc`` as the token performs it."""
        row = self.rows[enc]
        assert isinstance(row, ContentEncryption)  # noqa: S101  # as in the table of its name
        return row

    def transport_showing(self, alg: str, enc: str) -> Transport:
        """Return how they travel so that they are shown; raise ``UnsupportedAlgorithm``.

        The token has proven to show those that have to be split, and shows others likewise.
        """
        split = CONTENT_FAMILIES[-1][-1].name
        return self.transport(alg, enc)._replace(path=self.transport(alg, split).path.showing())

    def require_offered(self, name: str) -> None:
        """Raise ``UnsupportedAlgorithm`` with the reason if the algorithm is not offered."""
        reason = self.offers[name].reason
        if reason is not None:
            raise UnsupportedAlgorithm.not_offered(name, reason)

    @classmethod
    def prove(
        cls,
        pool: SessionPool,
        templates: Templates,
        canary: Canary,
        policy: Policy,
        proof_cache: ProofCache,
    ) -> "Token":
        """Try every algorithm of which there are no findings; return the token with its offers.

        Raises ``PKCS11Error`` if the token fails in a way that says nothing of its abilities.
        """
        trials = _Trials(pool, templates, canary, policy, proof_cache)
        offers = {name: trials.offer(row) for name, row in ALGORITHMS.items()}
        for encs in CONTENT_FAMILIES:
            trials.limit([enc for enc in encs if offers[enc.name].is_offered], offers)
        trials.close()
        _log(offers)
        in_process = {alg for (alg, _), path in trials.taken.items() if path.takes_bare_rsa}
        rows = trials.rows
        otherwise = {
            name for name, row in ALGORITHMS.items() if rows[name].mechanism is not row.mechanism
        }
        templates = replace(
            templates, in_process=frozenset(in_process), otherwise=frozenset(otherwise)
        )
        return cls(
            pool=pool,
            templates=templates,
            canary=canary,
            stores=stores_of(
                pool,
                templates,
                canary,
                announce_change=policy.announce_change,
                unwrapped_keys=policy.unwrapped_keys,
                observer=policy.observer,
                resting=policy.resting,
            ),
            offers=offers,
            rows=rows,
            paths=trials.taken,
        )


def round_trip(keys: Keys, token: Token, row: Algorithm, message: bytes) -> bool:
    """Tell whether ``keys`` undo with ``row`` what they have done with it."""
    if row.family is Family.KEY_MANAGEMENT:
        return jwe.round_trip(keys, token.transport(row.name, _TRIED_ENC), message)
    return ROUND_TRIPS[row.family](keys, token.rows[row.name], message, message)


def inventory(token: Token, session: Session) -> Mapping[UUID, frozenset[KeyObject]]:
    """Return the kids of all keys that are kept on, or by, the token, each with its objects."""
    return {
        kid: objects
        for store in token.stores.values()
        for kid, objects in store.inventory(session).items()
    }


class _Trials:
    """Tries algorithms.

    ``taken`` are the paths that CEKs of an alg and an enc are to take, ``rows`` the ways of the
    other algorithms.
    """

    def __init__(
        self,
        pool: SessionPool,
        templates: Templates,
        canary: Canary,
        policy: Policy,
        proof_cache: ProofCache,
    ) -> None:
        bare = {
            row.name for row in KEY_MANAGEMENTS.values() if CekPathName.PROCESS in row.cek_paths
        }
        to_try = replace(templates, in_process=frozenset(bare), otherwise=frozenset(ALGORITHMS))
        self._proof = Proof(pool.anchor, to_try, canary)
        self._templates = templates
        self._pool = pool
        self._canary = canary
        self._policy = policy
        self._proof_cache = proof_cache
        self._kek: Handle
        self._kek_refusal = refusal_of(pool, self._generate_kek, canary.works)
        self._path = cache(lambda name: CEK_PATHS[name](templates, self._kek))
        self.taken: dict[tuple[str, str], CekPath] = {}
        self.rows = dict(ALGORITHMS)

    def offer(self, row: Algorithm) -> Offer:
        """Return what is offered of ``row``; key management is, if it is with any ``enc``."""
        if row.family is not Family.KEY_MANAGEMENT:
            return self._way(row)
        by_enc: dict[str, Offer] = {}
        for encs in CONTENT_FAMILIES:
            offer = self._transport(KEY_MANAGEMENTS[row.name], encs)
            by_enc |= dict.fromkeys((enc.name for enc in encs), offer)
        best = min(by_enc.values(), key=lambda offer: not offer.is_offered)
        return best._replace(by_enc=MappingProxyType(by_enc))

    def close(self) -> None:
        """Destroy what was made to try with."""
        self._proof.close()

    def limit(self, encs: Sequence[ContentEncryption], offers: dict[str, Offer]) -> None:
        """Note in ``rows`` and ``offers`` of ``encs`` how long a plaintext may be, if limited."""
        for enc in encs[-1:]:
            most = most_bytes(self._policy.plaintext_bytes, partial(self._size_refusal, enc))
            if most is not None:
                self.rows.update((each.name, replace(each, most_bytes=most)) for each in encs)
                offers.update(
                    (each.name, offers[each.name]._replace(most_bytes=most)) for each in encs
                )

    def _size_refusal(self, enc: ContentEncryption, plaintext_bytes: int) -> str | None:
        trial = partial(self._proof.attempt_size, enc, plaintext_bytes)
        return self._proof_cache.refusal(
            f"{enc.mechanism.name} {plaintext_bytes} bytes",
            lambda: refusal_of(self._pool, trial, self._canary.works),
        )

    def _way(self, row: Algorithm) -> Offer:
        """Return what is offered of the first way that is refused with the fewest of its keys."""
        tried: list[tuple[dict[str, str], Algorithm]] = []
        for way in row.ways:
            attempt = partial(self._proof.attempt, way)
            name = row.name if way is row else f"{row.name} {way.mechanism.name}"
            tried.append((self._refusals(way, attempt, name), way))
            if not tried[-1][0]:
                break
        refusals, way = min(tried, key=lambda found: len(found[0]))
        self.rows[row.name] = way
        return offer_of(way, refusals, "token")

    def _transport(self, row: KeyManagement, encs: Sequence[ContentEncryption]) -> Offer:
        if self._kek_refusal is not None:
            self._proof_cache.details[row.name] = self._kek_refusal.details
            return Offer(self._kek_refusal.reason)
        reason = None
        for path in map(self._path, row.cek_paths):
            if path.carries(encs[0]):
                attempt = partial(self._proof.attempt_transport, row, path, encs)
                name = f"{row.name} {encs[0].name} {type(path).__name__}"
                found = offer_of(row, self._refusals(row, attempt, name), path.residency)
                if found.is_offered and self._policy.permits(path):
                    self.taken.update(((row.name, enc.name), path) for enc in encs)
                    return found
                reason = found.reason
        return Offer(reason or FORBIDDEN)

    def _generate_kek(self, _session: Session) -> None:
        self._kek = generate_kek(self._pool.anchor, self._templates).remembered

    def _refusals(self, row: Algorithm, attempt: Attempt, name: str) -> dict[str, str]:
        """Return why not, by curve."""
        found = {
            curve.crv if curve else "": self._policy.refusal(row, curve)
            or self._refusal(attempt, name, curve)
            for _, curve in row.keys
        }
        return {crv: reason for crv, reason in found.items() if reason is not None}

    def _refusal(self, attempt: Attempt, name: str, curve: Curve | None) -> str | None:
        return self._proof_cache.refusal(
            f"{name} {curve.crv}" if curve else name,
            lambda: refusal_of(self._pool, partial(attempt, curve), self._canary.works),
        )


def _log(offers: Mapping[str, Offer]) -> None:
    for name, offer in offers.items():
        if offer.is_offered:
            logger.debug("%s is offered, CEK or key in the %s", name, offer.residency)
        else:
            logger.info("%s is not offered: %s", name, offer.reason)
