"""The steps of an examination, in their order, and what each of them needs."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import UUID

from app import settings
from app.config import Config
from app.operator.doctor import checks
from app.operator.doctor.check import Check, check_of
from app.operator.doctor.verdict import Result
from app.registry import LASTING, Registry, State
from app.settings import PREFIX
from hsm import (
    ALGORITHMS,
    RATES,
    Examination,
    Finding,
    KeySpec,
    Storage,
    TokenUnavailable,
    is_whole,
)

_RATE_SECONDS: Final = 0.5
_LOCK_SECONDS: Final = 30.0
_FORBIDDEN: Final = "switched_off"
_NOT_OFFERED: Final = ("lacking", "no_function", _FORBIDDEN)
_RARE: Final = ("ML-DSA-44", "ML-DSA-65", "ML-DSA-87", "MLDSA44")


class Step(NamedTuple):
    """A look, and the steps that must not have failed before; ``asks_token`` if it does."""

    name: str
    look: Callable[[], Finding]
    needs: tuple[str, ...] = ()
    asks_token: bool = False


class Doctor:
    """Examines the installation of ``config``, with ``workers``; ``is_quick`` measures no rates.

    ``begin`` is told the name of each step before it is taken.
    A step that fails ends none but those that need it. It makes nothing but what the service makes
    when it opens its token: locks, and the latch of a PIN that is refused.
    """

    def __init__(
        self, config: Config, *, workers: int, is_quick: bool, begin: Callable[[str], None]
    ) -> None:
        self._config = config
        self._begin = begin
        self._examination = Examination(config.hsm_settings)
        self._is_quick = is_quick
        self._workers = workers
        self._clock = checks.Clock()
        self._opening = ExitStack()
        self._results: dict[str, Result] = {}
        self._settings = {
            "token": config.token_label or config.token_serial or config.token_uri,
            "state_dir": str(config.state_dir),
            "pin_file": str(config.pin_file or f"{PREFIX}PIN"),
            "latch": str(config.state_dir / "pin.latch"),
            "user": checks.user(),
            "workers": workers,
        }
        self.is_stuck = False
        """A look has not come back: its thread is still in the library."""

    def checks(self) -> Iterator[Check]:
        """Take all steps, one after the other; give how each ended."""
        try:
            for step in self._steps():
                self._begin(step.name)
                check = check_of(step.name, self._taken(step), self._settings)
                self._results[step.name] = check.result
                yield check
        finally:
            self._opening.close()
            if not self.is_stuck:
                self._examination.close()

    def _steps(self) -> Iterator[Step]:
        yield from self._steps_to_the_token()
        self._opening.close()
        yield from self._steps_beside_it()
        yield from self._steps_on_it()
        yield Step("keys", self._keys, ("registry", "proof"), asks_token=True)
        yield Step("keks", self._keks, ("registry", "proof"), asks_token=True)
        yield Step("clock", self._time)

    def _steps_to_the_token(self) -> Iterator[Step]:
        config, token = self._config, self._examination
        yield Step("settings", Finding)
        yield Step("state_dir", partial(checks.state_dir, config))
        yield Step("disk.state", partial(checks.disk, config.state_dir))
        yield Step("disk.token", lambda: checks.disk(token.token_directory))
        yield Step("pin_file", partial(checks.pin_file, config))
        yield Step("pin_mode", partial(checks.pin_mode, config), ("pin_file",))
        yield Step("boot_lock", self._lock, ("state_dir",))
        yield Step("module", token.module, ("boot_lock",), asks_token=True)
        yield Step("token", token.token, ("module",), asks_token=True)
        yield Step("flags", token.flags, ("token",), asks_token=True)
        yield Step("pin_latch", token.latch, ("token", "pin_file"), asks_token=True)
        needs = ("flags", "pin_latch", "disk.state", "disk.token")
        yield Step("login", token.login, needs, asks_token=True)

    def _steps_beside_it(self) -> Iterator[Step]:
        yield Step("registry", partial(checks.registry, self._config))
        yield Step("audit_log", partial(checks.audit_log, self._config))

    def _steps_on_it(self) -> Iterator[Step]:
        token, config = self._examination, self._config
        unwrapping = config.storage == Storage.WRAPPED  # one session holds what is unwrapped
        number = self._workers * (1 + config.sessions + config.generations + unwrapping)
        yield Step("sessions", partial(token.sessions, number), ("login",), asks_token=True)
        yield Step("random", token.random, ("login",), asks_token=True)
        yield Step("canary", self._canary, ("login",), asks_token=True)
        yield Step("owner", self._owner, ("registry", "canary"), asks_token=True)
        yield Step("proof", token.proof, ("canary",), asks_token=True)
        needed = self._needed() if self._results["registry"] is Result.OK else frozenset()
        for name in ALGORITHMS:
            look = partial(self._algorithm, name, is_needed=name in needed)
            yield Step(f"algorithm {name}", look, ("proof",), asks_token=True)
        for name in () if self._is_quick else RATES:
            look = partial(token.rate, name, _RATE_SECONDS)
            yield Step(f"rate {name}", look, ("proof",), asks_token=True)

    def _taken(self, step: Step) -> Finding:
        broken = [
            name for name in step.needs if self._results[name] in {Result.FAILED, Result.SKIPPED}
        ]
        if broken or (self.is_stuck and step.asks_token):
            return Finding("skipped", {"needs": ", ".join(broken) or "a token that answers"})
        return self._in_time(step.look) if step.asks_token else _guarded(step.look)

    def _in_time(self, look: Callable[[], Finding]) -> Finding:
        """Take a look in a thread of its own: nothing gets one out of the library."""
        seconds = self._config.generation_seconds
        found: list[Finding] = []
        thread = threading.Thread(target=lambda: found.append(_guarded(look)), daemon=True)
        thread.start()
        thread.join(seconds)
        self.is_stuck = not found
        return found[0] if found else Finding("hangs", {"seconds": seconds})

    def _lock(self) -> Finding:
        try:
            self._opening.enter_context(self._examination.alone(_LOCK_SECONDS))
        except TokenUnavailable:
            return Finding("busy", {"seconds": _LOCK_SECONDS})
        return Finding()

    def _canary(self) -> Finding:
        found = self._examination.canary()
        return (
            found if found.symptom or found.facts["was_there"] else Finding("absent", found.facts)
        )

    def _owner(self) -> Finding:
        return self._examination.registry(checks.identity(self._config))

    def _algorithm(self, name: str, *, is_needed: bool) -> Finding:
        found = self._examination.algorithm(name)
        if found.symptom not in _NOT_OFFERED:
            return found
        if is_needed:
            return Finding("needed", found.facts)
        is_rare = name in _RARE and found.symptom != _FORBIDDEN
        return Finding("rare", found.facts) if is_rare else found

    def _keys(self) -> Finding:
        """Compare registry and token; what is being made or destroyed meanwhile does not count."""
        before = self._specs()
        try:
            found = self._examination.inventory()
        except TokenUnavailable as error:
            return Finding("error", {"answer": error.subject})
        after = self._specs()
        missing = {
            kid for kid in before.keys() & after if not is_whole(before[kid], found.get(kid))
        }
        unknown = found.keys() - before.keys() - after.keys() - self._specs(State).keys()
        facts = {"rows": len(after), "missing": len(missing), "unknown": len(unknown)}
        return Finding("missing" if missing else "unknown" if unknown else "", facts)

    def _keks(self) -> Finding:
        """Compare the key-encryption keys that rows name with those of the token."""
        in_use = Registry(self._config.registry_url, host="").keks.in_use()
        there = self._examination.keks()
        lost = {kek: number for kek, number in in_use.items() if kek not in there}
        if self._config.storage == "wrapped" and not there:
            return Finding("none")
        if not lost:
            return Finding(facts={"rows": sum(in_use.values())})
        return Finding(
            "missing", {"rows": sum(lost.values()), "keks": ", ".join(sorted(map(str, lost)))}
        )

    def _specs(self, states: Iterable[State] = LASTING) -> dict[UUID, KeySpec]:
        """Return what the keys are in one of ``states``, by default those that are to stay."""
        return dict(Registry(self._config.registry_url, host="").specs(states, [Storage.TOKEN]))

    def _needed(self) -> frozenset[str]:
        """Return the algorithms that keys of the registry are bound to."""
        return frozenset(spec.alg for spec in self._specs().values() if spec.alg)

    def _time(self) -> Finding:
        has_registry = self._results["registry"] is Result.OK
        has_token = self._results["token"] is Result.OK and not self.is_stuck
        token = self._examination.clock if has_token else None
        return self._clock.look(self._config, token, has_registry=has_registry)


def workers() -> int:
    """Return how many workers the service has here, as its configuration counts them.

    Raises ``ConfigError``.
    """
    return settings.workers(os.environ) or len(os.sched_getaffinity(0))


def _guarded(look: Callable[[], Any]) -> Finding:
    """Take a look; whatever happens, the examination goes on."""
    try:
        return Finding(*look())
    except Exception as error:  # noqa: BLE001  # see above
        return Finding("unexpected", {"type": type(error).__name__})
