"""The life of the token in one process: starting, ready, unavailable, ready again."""

import atexit
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from pkcs11 import PKCS11Error
from pkcs11.exceptions import SessionClosed

from hsm.cryptoki.canary import Canary
from hsm.cryptoki.faults import Fault, fault_of, name_of
from hsm.cryptoki.login import log_in
from hsm.cryptoki.module import Module, Product
from hsm.cryptoki.pin_latch import PinLatch
from hsm.cryptoki.pool import Loan, Sessions
from hsm.errors import Cause, HsmError, KeyUnavailable, TokenUnavailable, WrongResult
from hsm.files import file_lock
from hsm.importing.imports import Imports, ImportsOfToken
from hsm.importing.proof import found_imports
from hsm.life.proof_cache import ProofCache
from hsm.life.state import Phase, State
from hsm.life.token import Policy, Token
from hsm.life.variants import found_templates
from hsm.life.watchdog import Watch, Watchdog
from hsm.life.work import Work
from hsm.periodic import jittered
from hsm.settings import Settings
from hsm.storage.owner import owner_of
from hsm.storage.proof import found_keepable
from hsm.storage.stores import wrapped_store_of
from hsm.tokens.softhsm import FirstAid
from hsm.tokens.token_lock import TokenLock

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_RETRIED: Final = (Fault.SESSION_LOST, Fault.KEY_GONE, Fault.BUSY, Fault.AMBIGUOUS)
_SUSPICIOUS: Final = (Fault.SESSION_LOST, Fault.KEY_GONE, Fault.AMBIGUOUS, Fault.DOWN)
_BUSY_PAUSE_SECONDS: Final = 0.05
_CANARY_SECONDS: Final = 5.0
_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 4.0
_FAILURES_OF_A_LIBRARY: Final = 10
_STOP_SECONDS: Final = 5.0


class Connection:
    """Keeps the token connected and lends its sessions to work: the one owner of its ``state``.

    One background thread connects, and checks the canary every few seconds and after every
    suspicion. If it fails the thread starts again from C_Finalize: nothing less brings a lost
    token back.
    Each time is an epoch with a ``Token`` of its own, so that no handle outlives its
    initialisation. It is no ``Periodic``, because a suspicion ends its pauses and failures lengthen
    them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._latch = PinLatch(settings.state_dir / "pin.latch")
        self._first_aid = FirstAid(settings.module, settings.state_dir / "softhsm")
        self._lock = TokenLock(settings.module, settings.state_dir / "token.lock")
        self._watchdog = Watchdog()
        self._module: Module | None = None
        self._token: Token | None = None
        self._product: Product | None = None
        self._state = State(Phase.STARTING, Cause.STARTING, "the token is being opened")
        self._tried = threading.Event()
        self._suspicion = threading.Event()
        self._is_stopping = threading.Event()
        self._loans = Loans()
        self.owner = ""
        """What registry the token belongs to, as it said when it was opened."""
        self.places: Mapping[str, str] = {}
        """Where the token is, as ``Module.places`` says."""

    def start(self) -> None:
        """Connect in the background. Call after fork, never before."""
        self._watchdog.start()
        thread = threading.Thread(target=self._keep_connected, name="hsm-connection", daemon=True)
        thread.start()
        atexit.register(self._stop, thread)

    def _stop(self, thread: threading.Thread) -> None:
        """End the thread: the interpreter must not be torn down around a call into the library."""
        self._is_stopping.set()
        self._suspicion.set()
        thread.join(_STOP_SECONDS)

    @property
    def state(self) -> State:
        """Where the token is in its life; never asks it."""
        return self._state

    @property
    def product(self) -> Product | None:
        """What library and token last reported of themselves; ``None`` before."""
        return self._product

    @property
    def sessions(self) -> Sessions:
        """How many sessions operations share, and how many of them are lent now."""
        token = self._token
        return token.pool.operations.sessions if token else Sessions(0, 0)

    @property
    def token(self) -> Token:
        """The token of this epoch; raises ``TokenUnavailable`` while there is none.

        The first requests of a new process wait a little for it rather than fail.
        """
        token = self._token
        if token is None:
            self._tried.wait(self._settings.session_wait_seconds)
            token = self._token
        if token is None:
            self._loans.end()
            raise TokenUnavailable(self._state.reason, cause=self._state.cause or Cause.LOST)
        return token

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Lend the same session to the operations of this thread inside the ``with`` block."""
        self._loans.own = Loan()
        try:
            yield
        finally:
            self._loans.end()
            self._loans.own = None

    def suspect(self) -> None:
        """Have the background thread check the token now."""
        self._suspicion.set()

    def perform(self, work: Work[Result]) -> Result:
        """Do ``work`` with a lent session and return its result.

        This is the one place that tries again: on another session, after a fault of the session
        rather than of the caller. Raises ``HsmError`` only.
        """
        deadline_seconds = work.deadline_seconds or self._deadline_seconds(work)
        attempt = 0
        while True:
            attempt += 1
            token = self.token
            lane = token.pool.generations if work.takes_seconds else token.pool.operations
            try:
                with (
                    self._lock.held(self._settings.session_wait_seconds),
                    lane.session(self._loans.own, is_new=attempt > 1) as session,
                    self._watchdog.watching("an operation", deadline_seconds),
                ):
                    return work.run(token, session, attempt)
            except (TokenUnavailable, WrongResult) as error:
                if isinstance(error, WrongResult):
                    logger.error("the token gave a wrong %s", error.subject)  # noqa: TRY400  # ours
                if error.cause is not Cause.BUSY and not isinstance(error, KeyUnavailable):
                    self.suspect()
                raise
            except PKCS11Error as error:
                fault = fault_of(error)
                logger.warning("the token answered %s", name_of(error))
                if attempt < work.attempts and fault in _RETRIED:
                    if fault is Fault.BUSY:
                        time.sleep(jittered(_BUSY_PAUSE_SECONDS))
                    continue
                if fault in _SUSPICIOUS:
                    self.suspect()
                raise work.failure(error) from error

    def _deadline_seconds(self, work: Work[Any]) -> float:
        settings = self._settings
        return settings.generation_seconds if work.takes_seconds else settings.call_seconds

    def _keep_connected(self) -> None:
        failures, pause_seconds = 0, _FIRST_PAUSE_SECONDS
        while not self._is_stopping.is_set():
            try:
                self._connect()
            except Exception as error:  # noqa: BLE001  # nothing may end this thread
                self._fail(error)
                failures += 1
                if failures == _FAILURES_OF_A_LIBRARY and self._state.epoch:
                    _ask_for_a_new_process()
                self._is_stopping.wait(jittered(pause_seconds))
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
            else:
                failures, pause_seconds = 0, _FIRST_PAUSE_SECONDS
                self._tried.set()
                self._watch()

    def _fail(self, error: Exception) -> None:
        is_expected = isinstance(error, HsmError | PKCS11Error | OSError)
        state = State(Phase.UNAVAILABLE, _cause_of(error), _reason_of(error), self._state.epoch)
        if state != self._state:  # once, however often it is tried
            cause = None if is_expected else error
            logger.warning("not connected: %s", state.reason, exc_info=cause)
        self._state = state
        self._tried.set()

    def _connect(self) -> None:
        settings = self._settings
        module = self._module = self._module or Module(settings.module, settings.parameters)
        seconds = settings.generation_seconds
        # SoftHSM rewrites its token at each login; whoever boots meanwhile finds none.
        with (
            file_lock(settings.state_dir / "boot.lock"),
            self._lock.held(),
            self._watchdog.watching("the opening of the token", seconds),
        ):
            module.finalize()
            self._first_aid.require_readable()
            self._first_aid.restore()
            module.initialize()
            found = module.find_token(label=settings.token_label, serial=settings.token_serial)
            self._product, self.places = module.product(found), module.places(found)
            self._lock.learn(self._product)
            pool = log_in(found, settings, self._latch, module.functions, self._watching_session)
            self._first_aid.save()
            resting = self._watchdog.resting
            proof_cache = ProofCache(settings.shared_dir, pool.token, settings.parameters, resting)
            with proof_cache.shared(believe=not self._state.epoch):
                templates = found_templates(pool, proof_cache)
                canary = Canary(pool.anchor, templates)
            self.owner = owner_of(pool.anchor, canary)
        policy = Policy.of(settings, self._first_aid.announce_change, resting)
        with (
            self._lock.held(),
            self._watchdog.watching("the proof of the algorithms", seconds),
            proof_cache.shared(believe=not self._state.epoch),
        ):
            token = Token.prove(pool, templates, canary, policy, proof_cache)
            token = replace(token, keepable=found_keepable(token, proof_cache))
        imports = ImportsOfToken(
            partial(_imports_of, token, proof_cache, believe=not self._state.epoch), resting
        )
        self._token = replace(token, imports=imports)
        self._state = State(Phase.READY, epoch=self._state.epoch + 1)
        settings.observer.connected(self._state.epoch)
        logger.info("the token is ready")

    def _watching_session(self) -> Watch:
        return self._watchdog.watching("a session", self._settings.call_seconds)

    def _watch(self) -> None:
        """Return when the token is lost and no call is in flight any more, or at the end."""
        while True:
            is_suspected = self._suspicion.wait(jittered(_CANARY_SECONDS))
            self._suspicion.clear()
            if self._is_stopping.is_set():
                return
            if not self._is_well(finds=is_suspected):
                break
        token, self._token = self.token, None
        self._state = State(Phase.UNAVAILABLE, Cause.LOST, "the token is lost", self._state.epoch)
        self._settings.observer.lost(Cause.LOST)
        logger.error("the token is lost")
        # Whoever hangs in a call is ended by the watchdog, and so is this.
        token.pool.drain()

    def _is_well(self, *, finds: bool = True) -> bool:
        """Tell how it looks; well, if it cannot be looked at: whoever uses it will find out."""
        try:
            self._keep_alive()
            return self._looks_well(finds=finds)
        except TokenUnavailable:  # all sessions are busy, or there is no file for the lock
            return True

    def _keep_alive(self) -> None:
        with (
            self._lock.held(),
            self._watchdog.watching("idle sessions", self._settings.call_seconds),
        ):
            self.token.pool.keep_alive()
            wrapped_store_of(self.token.stores).keep_alive()

    def _looks_well(self, *, finds: bool, is_new: bool = False) -> bool:
        """Tell how it looks on a session; one that has just ended says nothing of the token."""
        token = self.token
        try:
            with (
                self._lock.held(),
                token.pool.operations.session(is_new=is_new) as session,
                self._watchdog.watching("the canary", self._settings.call_seconds),
            ):
                is_well = token.is_well(session, finds=finds)
                if is_well or session.is_alive():
                    return is_well
                raise SessionClosed
        except PKCS11Error as error:
            fault = fault_of(error)
            if fault is Fault.SESSION_LOST and not is_new:
                return self._looks_well(finds=finds, is_new=True)
            return fault is Fault.BUSY


class Loans(threading.local):
    """The loan of each thread that has one."""

    def __init__(self) -> None:
        self.own: Loan | None = None

    def end(self) -> None:
        """Put back what this thread keeps; a lost token waits for it."""
        if self.own:
            self.own.end()


def _imports_of(token: Token, proof_cache: ProofCache, *, believe: bool) -> Imports:
    with proof_cache.shared(believe=believe):
        return found_imports(token, proof_cache)


def _ask_for_a_new_process() -> None:
    """End this process as its server would: some libraries come back in a new one only."""
    logger.error("the token does not come back into this process, which makes room for another")
    os.kill(os.getpid(), signal.SIGTERM)


def _cause_of(error: Exception) -> Cause:
    match error:
        case TokenUnavailable():
            return error.cause
        case PKCS11Error() | OSError():
            return Cause.TOKEN
        case _:
            return Cause.INTERNAL


def _reason_of(error: Exception) -> str:
    match error:
        case PKCS11Error():
            return f"the token answers {name_of(error)}"
        case TokenUnavailable():
            return error.subject
        case _:
            return f"unexpected {type(error).__name__}"
