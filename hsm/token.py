"""One token during one epoch: what it holds, and what it has proven to be able to do."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal, NamedTuple

from pkcs11 import Attribute, PKCS11Error

from hsm.algorithms import ALGORITHMS, EC, KEY_MANAGEMENTS, Algorithm, KeyManagement, KeySpec
from hsm.canary import Canary
from hsm.errors import HsmError, TokenUnavailable, UnsupportedAlgorithm
from hsm.faults import Fault, fault_of, name_of
from hsm.keystore import Keystore
from hsm.pool import SessionPool
from hsm.proof import Proof
from hsm.session import Session
from hsm.templates import OPTIONAL, Templates
from hsm.wrapping import Path, ProcessPath, TokenPath, generate_kek

logger = logging.getLogger(__name__)

_TRIES: Final = 3
_TRIES_OF_WRONG_RESULTS: Final = 12
_PAUSE_SECONDS: Final = 0.25
_SMALL_PAIR: Final = KeySpec(kty="EC", alg="ES256", crv="P-256")
_SAYS_NOTHING: Final = (Fault.DOWN, Fault.SESSION_LOST, Fault.BUSY, Fault.PIN)


class Offer(NamedTuple):
    """Whether an algorithm is offered: ``reason`` says why not, ``residency`` where a CEK is."""

    reason: str | None = None
    residency: Literal["token", "process"] = "token"

    @property
    def is_offered(self) -> bool:
        """Nothing speaks against it."""
        return self.reason is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is decided outside of the token.

    ``process_allowed`` lets a CEK pass through the process; ``results_checked`` has every result
    looked at before it is given away; ``announce_change`` makes the library look anew for what
    other processes have stored.
    """

    fips: bool
    process_allowed: bool
    results_checked: bool
    announce_change: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What operations need of the token; made anew, with all its handles, in each epoch."""

    pool: SessionPool
    canary: Canary
    keystore: Keystore
    offers: Mapping[str, Offer]
    paths: Mapping[str, Path]
    results_checked: bool

    def is_well(self, session: Session, *, finds: bool = True) -> bool:
        """Tell whether keys are used, the key-encryption key too, and whether they are found.

        A search costs SoftHSM the more the more keys there are; without ``finds`` there is none.
        """
        return (
            (not finds or self.canary.is_found(session))
            and self.canary.sings(session)
            and all(path.works(session) for path in self.paths.values())
        )

    def require_offered(self, name: str) -> None:
        """Raise ``UnsupportedAlgorithm`` with the reason if the algorithm is not offered."""
        reason = self.offers[name].reason
        if reason is not None:
            raise UnsupportedAlgorithm.not_offered(name, reason)

    @classmethod
    def prove(
        cls, pool: SessionPool, templates: Templates, canary: Canary, policy: Policy
    ) -> "Token":
        """Try every algorithm, and return the token with what it offers.

        Raises ``PKCS11Error`` if the token fails in a way that says nothing of its abilities.
        """
        kek = generate_kek(pool.anchor, templates).remembered
        everything = replace(templates, in_process=frozenset(KEY_MANAGEMENTS))
        proof = Proof(pool.anchor, everything, canary)
        candidates = (TokenPath(templates, kek), ProcessPath(templates, kek))
        paths: dict[str, Path] = {}

        def offer(row: Algorithm) -> Offer:
            if policy.fips and not row.fips:
                return Offer("not offered in FIPS mode")
            if not isinstance(row, KeyManagement):
                return Offer(_refusal(pool, partial(proof.attempt, row), canary.sings))
            for path in candidates:
                trial = partial(proof.attempt_transport, row, path)
                refusal = _refusal(pool, trial, canary.sings)
                if refusal is None and (path.residency == "token" or policy.process_allowed):
                    paths[row.name] = path
                    return Offer(None, path.residency)
            return Offer(refusal or "its CEKs would pass through the process, which is forbidden")

        offers = {name: offer(row) for name, row in ALGORITHMS.items()}
        proof.close()
        _log(offers)
        in_process = {name for name, path in paths.items() if path.residency == "process"}
        return cls(
            pool=pool,
            canary=canary,
            keystore=Keystore(
                replace(templates, in_process=frozenset(in_process)), canary, policy.announce_change
            ),
            offers=offers,
            paths=paths,
            results_checked=policy.results_checked,
        )


def known_attributes(pool: SessionPool) -> Templates:
    """Return templates with those optional attributes that the token takes."""

    def try_with(attributes: Iterable[Attribute], session: Session) -> bool:
        templates = Templates(optional=frozenset(attributes))
        generate_kek(session, templates).destroy()
        for half in session.generate_keypair(
            EC.key_type, None, **templates.pair_generation(_SMALL_PAIR)
        ):
            session.destroy(half)
        return True

    def is_taken(attribute: Attribute) -> bool:
        return _refusal(pool, partial(try_with, [attribute]), partial(try_with, [])) is None

    return Templates(optional=frozenset(filter(is_taken, OPTIONAL)))


def _refusal(
    pool: SessionPool, trial: Callable[[Session], object], control: Callable[[Session], bool]
) -> str | None:
    """Return why ``trial`` fails on this token, or ``None`` if it succeeds.

    A token in trouble lacks nothing: a wrong result is believed only of one that gives it for
    seconds, and a refusal only if ``control`` succeeds after it. Else ``TokenUnavailable`` is
    raised, or the ``PKCS11Error`` that says so by itself.
    """
    reason, errors = None, 0
    for _ in range(_TRIES_OF_WRONG_RESULTS):
        try:
            with pool.operations.session() as session:
                trial(session)
        except HsmError:
            reason = "the token gives a wrong result"
            time.sleep(_PAUSE_SECONDS)
        except PKCS11Error as error:
            if fault_of(error) in _SAYS_NOTHING:
                raise
            reason, errors = f"the token answers {name_of(error)}", errors + 1
            if errors == _TRIES:
                break
        else:
            return None
    with pool.operations.session() as session:
        if not control(session):
            raise TokenUnavailable("the token does not answer")
    return reason


def _log(offers: Mapping[str, Offer]) -> None:
    for name, offer in offers.items():
        if offer.is_offered:
            logger.debug("%s is offered, CEK or key in the %s", name, offer.residency)
        else:
            logger.info("%s is not offered: %s", name, offer.reason)
