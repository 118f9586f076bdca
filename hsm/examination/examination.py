"""An examination of a token step by step, as the service opens and uses it.

It leaves nothing on the token: what it makes are session objects, and what it stores to see which
attributes are taken is gone at once. A token without session objects keeps the canary, as that of
the service. The PIN is tried at most once, under the lock and the latch of the service.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import Any, Concatenate, Final, NamedTuple, ParamSpec
from uuid import UUID

from pkcs11 import PKCS11Error, TokenFlag
from pkcs11 import Token as RawToken

from hsm.algorithms.families import Family
from hsm.algorithms.tables import ALGORITHMS
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.canary import Canary
from hsm.cryptoki.faults import described, name_of
from hsm.cryptoki.login import REFUSALS, log_in, read_pin, was_wrong
from hsm.cryptoki.module import Module, serial_of
from hsm.cryptoki.objects import KeyObject
from hsm.cryptoki.pin_latch import PinLatch
from hsm.cryptoki.pool import SessionPool
from hsm.cryptoki.session import Session
from hsm.errors import HsmError, TokenUnavailable
from hsm.examination.known_answers import Example, KnownAnswers, NotImported, examples
from hsm.examination.rates import RATES, Bench, measure
from hsm.files import file_lock
from hsm.life.proof_cache import ProofCache
from hsm.life.refusal import WRONG_RESULT
from hsm.life.token import FORBIDDEN, Policy, Token, inventory
from hsm.life.variants import found_templates
from hsm.operations.session_keys import SessionKeys
from hsm.settings import Settings
from hsm.storage.owner import owner_of
from hsm.storage.stores import wrapped_store_of
from hsm.tokens.softhsm import FirstAid
from hsm.tokens.token_lock import TokenLock

Arguments = ParamSpec("Arguments")

_RANDOM_BYTES: Final = 32
_ALONE_SECONDS: Final = 30.0
_FLAGS: Final = (
    (TokenFlag.USER_PIN_LOCKED, "locked"),
    (TokenFlag.USER_PIN_FINAL_TRY, "final_try"),
    (TokenFlag.USER_PIN_TO_BE_CHANGED, "to_be_changed"),
    (TokenFlag.WRITE_PROTECTED, "write_protected"),
    (TokenFlag.USER_PIN_COUNT_LOW, "count_low"),
)

_REFUSED: Final = {
    REFUSALS["PinIncorrect"]: "refused",
    REFUSALS["PinLocked"]: "locked",
    REFUSALS["PinExpired"]: "expired",
}
_LACKS: Final = {"the token answers FunctionNotSupported": "no_function"}


class Finding(NamedTuple):
    """What one look has found: ``symptom`` is a word for what is wrong, empty if nothing is."""

    symptom: str = ""
    facts: Mapping[str, Any] = MappingProxyType({})


def _answered(
    look: Callable[Concatenate["Examination", Arguments], Finding],
) -> Callable[Concatenate["Examination", Arguments], Finding]:
    """Take an answer that the look has no word for as the symptom ``error``."""

    @wraps(look)
    def answered(
        self: "Examination", /, *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Finding:
        try:
            with self.lock.held():
                return look(self, *arguments, **named)
        except PKCS11Error as error:
            return Finding("error", {"answer": described(error)})
        except HsmError as error:
            return Finding("error", {"answer": error.subject or "a wrong result"})
        except OSError as error:
            return Finding("error", {"answer": f"{error.filename}: {error.strerror}"})

    return answered


class Examination:
    """Looks at one token; each look needs those that are named before it in this class.

    ``module`` to ``login`` belong into ``alone``, as the service opens its token.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._latch = PinLatch(settings.state_dir / "pin.latch")
        self._first_aid = FirstAid(settings.module, settings.state_dir / "softhsm")
        self.lock = TokenLock(settings.module, settings.state_dir / "token.lock")
        self._policy = Policy.of(settings, self._first_aid.announce_change)
        self._module: Module
        self._found: RawToken
        self._pool: SessionPool
        self._templates: Templates
        self._canary: Canary
        self._proof_cache: ProofCache
        self._token: Token

    @property
    def token_directory(self) -> Path | None:
        """Where the token keeps its files, if it is SoftHSM's."""
        return self._first_aid.directory()

    @contextmanager
    def alone(self, wait_seconds: float) -> Iterator[None]:
        """Let no process of this host open its token during one ``with`` block.

        Raises ``TokenUnavailable`` if another one does for so long.
        """
        with file_lock(self._settings.state_dir / "boot.lock", wait_seconds=wait_seconds):
            yield

    @_answered
    def module(self) -> Finding:
        """Load the library and initialise it."""
        path = self._settings.module
        if not path.is_file():
            return Finding("missing", {"path": str(path)})
        try:
            self._module = Module(path, self._settings.parameters)
        except TokenUnavailable:
            return Finding("not_a_module", {"path": str(path)})
        self._first_aid.require_readable()
        self._first_aid.restore()
        self._module.initialize()
        return Finding(facts={"path": str(path)})

    @_answered
    def token(self) -> Finding:
        """Find the token."""
        settings = self._settings
        wanted = {"label": settings.token_label, "serial": settings.token_serial}
        chosen = " and ".join(f"{name} '{value}'" for name, value in wanted.items() if value)
        there = sorted(token.label for token in self._module.tokens())
        facts = {"wanted": chosen, "there": ", ".join(f"'{label}'" for label in there) or "none"}
        try:
            self._found = self._module.find_token(
                label=settings.token_label, serial=settings.token_serial
            )
        except TokenUnavailable as error:
            return Finding("several" if "more" in error.subject else "missing", facts)
        serial = self._found.serial.decode("ascii", "replace")
        named = {"label": self._found.label, "serial": serial}
        product = self._module.product(self._found)
        self.lock.learn(product)
        return Finding(facts=named | product._asdict())

    @_answered
    def flags(self) -> Finding:
        """See what the token says of itself and its PIN."""
        info = self._module.token_info(self._found)
        facts = {"flags": " ".join(str(flag.name) for flag in info.flags)}
        if TokenFlag.USER_PIN_INITIALIZED not in info.flags:
            return Finding("no_pin", facts)
        return Finding(next((word for flag, word in _FLAGS if flag in info.flags), ""), facts)

    @_answered
    def latch(self) -> Finding:
        """See whether the PIN has been refused before; it is not tried."""
        is_closed = self._latch.is_closed(
            serial_of(self._found, self._settings.parameters),
            read_pin(self._settings),
            was_wrong=was_wrong(self._found),
        )
        return Finding("closed" if is_closed else "")

    @_answered
    def login(self) -> Finding:
        """Log in, once; what is refused is remembered for the service too."""
        try:
            self._pool = log_in(self._found, self._settings, self._latch, self._module.functions)
        except TokenUnavailable as error:
            return Finding(_REFUSED.get(error.subject, "error"), {"answer": error.subject})
        self._first_aid.save()
        return Finding()

    @_answered
    def sessions(self, number: int) -> Finding:
        """Open ``number`` sessions at once, unless the token says that there are not so many."""
        info = self._module.token_info(self._found)
        facts = {"number": number, "open": info.sessions, "most": info.most_sessions}
        if info.most_sessions is not None and number + info.sessions > info.most_sessions:
            return Finding("too_few", facts)
        opened: list[Any] = []
        try:
            opened.extend(self._found.open(rw=True) for _ in range(number))
        except PKCS11Error as error:
            return Finding("refused", facts | {"opened": len(opened), "answer": name_of(error)})
        finally:
            for session in opened:
                with suppress(PKCS11Error):
                    session.close()
        return Finding(facts=facts)

    @_answered
    def random(self) -> Finding:
        """Ask for random bytes, twice."""
        first, second = (self._anchor.generate_random(8 * _RANDOM_BYTES) for _ in range(2))
        is_random = first != second and len(set(first)) > 1 and len(first) == _RANDOM_BYTES
        return Finding("" if is_random else "constant")

    @_answered
    def canary(self) -> Finding:
        """Use the key by which the service sees that the token is well; it may not be there yet."""
        self._templates = found_templates(self._pool, ProofCache(None, self._found))
        try:
            self._canary = Canary(self._pool.anchor, self._templates, is_kept=False)
        except TokenUnavailable as error:
            if isinstance(error.__cause__, PKCS11Error):
                return Finding("unable", {"answer": described(error.__cause__)})
            raise
        return Finding(facts={"was_there": self._canary.was_there})

    @_answered
    def registry(self, expected: str) -> Finding:
        """Compare the registry that the token belongs to with the ``expected`` one."""
        found = owner_of(self._anchor, self._canary)
        if not found:
            return Finding("none")
        return Finding("" if found == expected else "another", {"found": found})

    @_answered
    def proof(self) -> Finding:
        """Try every algorithm, as the service does when it opens the token."""
        self._proof_cache = ProofCache(None, self._found)
        self._token = Token.prove(
            self._pool, self._templates, self._canary, self._policy, self._proof_cache
        )
        offers = self._token.offers.values()
        offered = sum(offer.is_offered for offer in offers)
        return Finding("" if offered else "none", {"offered": offered, "tried": len(offers)})

    @_answered
    def algorithm(self, name: str) -> Finding:
        """Compare what the token makes with what is known, if it offers ``name``."""
        row, offer = ALGORITHMS[name], self._token.offers[name]
        if offer.reason is not None:
            reasons = {self._policy.refusal(row, curve) for _, curve in row.keys} | {FORBIDDEN}
            symptoms = dict.fromkeys(reasons, "switched_off") | _LACKS
            if row.family is not Family.KEY_MANAGEMENT:  # there a refusal looks like bad padding
                symptoms[WRONG_RESULT] = "wrong"
            details = self._details(name, offer.reason)
            return Finding(symptoms.get(offer.reason, "lacking"), {"reason": details})
        chosen = [example for example in examples().get(name, ()) if self._is_offered(example)]
        try:
            self._compare(chosen)
        except NotImported as error:
            return Finding("not_imported", {"answer": str(error)})
        facts = {"compared_with": ", ".join(example.source for example in chosen)}
        if refused := self._refused_curves(name):
            reason = self._details(name, next(iter(refused.values())))
            return Finding("some_curves", facts | {"curves": ", ".join(refused), "reason": reason})
        symptom = {"token": "", "process": "in_process"}[offer.residency]
        return Finding(symptom if chosen else "no_example", facts)

    @_answered
    def rate(self, name: str, seconds: float) -> Finding:
        """Measure how often in a second the token performs an operation."""
        rate = RATES[name]
        if not self._token.offers[rate.alg].is_offered:
            return Finding("not_offered", {"alg": rate.alg})
        with self._pool.operations.session() as session:
            keys = SessionKeys(self._token.templates, self._canary)
            bench = Bench(session, keys, self._token.rows)
            return Finding(facts={"per_second": round(measure(rate, bench, seconds), 1)})

    def registry_of_token(self) -> str:
        """Return what registry the token belongs to; empty if it does not tell, for any reason."""
        try:
            with self.alone(_ALONE_SECONDS):
                looks = (self.module, self.token, self.flags, self.latch, self.login, self.canary)
                if any(look().symptom for look in looks):
                    return ""
                return owner_of(self._anchor, self._canary)
        except (PKCS11Error, HsmError, OSError):
            return ""
        finally:
            self.close()

    def inventory(self) -> Mapping[UUID, frozenset[KeyObject]]:
        """Return the kids of all objects on the token that carry our label, with their objects.

        Raises ``TokenUnavailable`` if the token does not say.
        """
        try:
            with self.lock.held(), self._pool.operations.session() as session:
                return inventory(self._token, session)
        except PKCS11Error as error:
            raise TokenUnavailable(f"the token answers {name_of(error)}") from error

    def keks(self) -> Collection[UUID]:
        """Return the key-encryption keys of the token."""
        return wrapped_store_of(self._token.stores).keks

    @property
    def clock(self) -> datetime | None:
        """The time of the token, if it has a clock and tells."""
        with suppress(HsmError):
            return self._module.token_info(self._found).time
        return None

    def close(self) -> None:
        """Let the library forget everything, session objects first of all."""
        if hasattr(self, "_module"):
            self._module.finalize()

    @property
    def _anchor(self) -> Session:
        return self._pool.anchor

    def _is_offered(self, example: Example) -> bool:
        offer = self._token.offers[example.name]
        return offer.refusal(example.crv) is None and offer.with_enc(example.enc).is_offered

    def _refused_curves(self, name: str) -> dict[str, str]:
        """Return the curves on which the token, and not the settings, refuses ``name``; and why."""
        row, refused = ALGORITHMS[name], self._token.offers[name].refused_crvs
        return {
            curve.crv: refused[curve.crv]
            for curve in row.curves
            if curve.crv in refused and not self._policy.refusal(row, curve)
        }

    def _details(self, name: str, reason: str) -> str:
        """Return what was answered when a trial of ``name`` was refused for ``reason``."""
        found = self._proof_cache.details.items()
        of_name = (details for trial, details in found if trial.split()[0] == name)
        return next((details for details in of_name if details.startswith(reason)), reason)

    def _compare(self, chosen: Iterable[Example]) -> None:
        known = KnownAnswers(self._token)
        for example in chosen:
            with self._pool.operations.session() as session:
                known.compare(example, session)
