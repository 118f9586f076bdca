"""The life of the token in one process: starting, ready, unavailable, ready again."""

import atexit
import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from pkcs11 import PKCS11Error, Session

from hsm.canary import Canary
from hsm.errors import HsmError, TokenUnavailable
from hsm.faults import Fault, fault_of, name_of, translate
from hsm.latch import PinLatch, file_lock
from hsm.module import Module
from hsm.observer import Observer
from hsm.pool import SessionPool
from hsm.softhsm import FirstAid
from hsm.state import Phase, State
from hsm.templates import attribute_mapper
from hsm.token import Policy, Token, known_attributes

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

ATTEMPTS: Final = 2
_RETRIED: Final = (Fault.SESSION_LOST, Fault.KEY_GONE, Fault.BUSY, Fault.AMBIGUOUS)
_SUSPICIOUS: Final = (Fault.SESSION_LOST, Fault.KEY_GONE, Fault.AMBIGUOUS, Fault.DOWN)
_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 4.0
_DRAIN_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``hsm`` needs to know. ``read_pin`` is called for each login; the PIN is not kept.

    ``state_dir`` holds the boot lock and the PIN latch; all processes of a host share it.
    """

    module: Path
    token_label: str | None
    token_serial: str | None
    read_pin: Callable[[], str] = field(repr=False)
    state_dir: Path
    sessions: int = 8
    session_wait_seconds: float = 2.0
    fips: bool = False
    process_allowed: bool = True
    observer: Observer = field(default_factory=Observer)


class Connection:
    """Keeps the token connected and lends it to operations.

    One background thread connects, looks after every suspicion whether the canary is still there,
    and if not starts anew from C_Finalize: nothing less brings a lost token back. Each time is an
    epoch with a ``Token`` of its own, so that no handle outlives its initialisation.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._latch = PinLatch(settings.state_dir / "pin.latch")
        self._first_aid = FirstAid(settings.module, settings.state_dir / "softhsm")
        self._module: Module | None = None
        self._token: Token | None = None
        self._reason: str | None = "the token is being opened"
        self._tried = threading.Event()
        self._suspicion = threading.Event()
        self._is_stopping = threading.Event()

    def start(self) -> None:
        """Connect in the background. Call after fork, never before."""
        thread = threading.Thread(target=self._keep_connected, name="hsm-connection", daemon=True)
        thread.start()
        atexit.register(self._stop, thread)

    def _stop(self, thread: threading.Thread) -> None:
        """End the thread: the interpreter must not be torn down around a call into the library."""
        self._is_stopping.set()
        self._suspicion.set()
        thread.join(_STOP_SECONDS)

    @property
    def reason(self) -> str | None:
        """Why the token is not available, or ``None`` while it is."""
        return self._reason

    @property
    def state(self) -> State:
        """Where the token is in its life; never asks it."""
        if self._reason is None:
            return State(Phase.READY, epoch=1)
        return State(Phase.UNAVAILABLE, "token", self._reason)

    @property
    def token(self) -> Token:
        """The token of this epoch; raises ``TokenUnavailable`` while there is none.

        The first requests of a new process wait a little for it rather than fail.
        """
        self._tried.wait(self._settings.session_wait_seconds)
        token = self._token
        if token is None:
            raise TokenUnavailable(self._reason or "the token is being opened")
        return token

    def suspect(self) -> None:
        """Have the background thread look whether the token is well."""
        self._suspicion.set()

    def perform(
        self, operation: Callable[[Token, Session], Result], *, attempts: int = ATTEMPTS
    ) -> Result:
        """Run ``operation`` with a lent session and return its result.

        It is run again, on another session, after a fault of the session rather than of the
        caller: what must not happen twice has to look after that. Raises ``HsmError`` only.
        """
        while True:
            attempts -= 1
            token = self.token
            try:
                with token.pool.session() as session:
                    return self._run(operation, token, session)
            except PKCS11Error as error:
                fault = fault_of(error)
                logger.warning("the token answered %s", name_of(error))
                if attempts and fault in _RETRIED:
                    continue
                if fault in _SUSPICIOUS:
                    self.suspect()
                raise translate(error) from error

    def _run(
        self, operation: Callable[[Token, Session], Result], token: Token, session: Session
    ) -> Result:
        try:
            return operation(token, session)
        except TokenUnavailable:  # it has looked for the canary in vain
            self.suspect()
            raise

    def _keep_connected(self) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while not self._is_stopping.is_set():
            try:
                self._connect()
            except Exception as error:  # nothing may end this thread
                self._reason = _reason_of(error)
                self._tried.set()
                is_expected = isinstance(error, HsmError | PKCS11Error | OSError)
                logger.warning(
                    "not connected: %s", self._reason, exc_info=None if is_expected else error
                )
                # Jitter, so that the processes of a host do not come all at once.
                self._is_stopping.wait(pause_seconds * random.uniform(0.5, 1.0))  # noqa: S311  # see above
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
            else:
                pause_seconds = _FIRST_PAUSE_SECONDS
                self._tried.set()
                self._watch()

    def _connect(self) -> None:
        settings = self._settings
        module = self._module = self._module or Module(settings.module)
        # SoftHSM rewrites its token at each login; whoever boots meanwhile finds none.
        with file_lock(settings.state_dir / "boot.lock"):
            module.finalize()
            self._first_aid.restore()
            module.initialize()
            pool = self._log_in(module)
            self._first_aid.save()
            templates = known_attributes(pool)
            canary = Canary(pool.anchor, templates)
        self._token = Token.prove(
            pool,
            templates,
            canary,
            Policy(
                fips=settings.fips,
                process_allowed=settings.process_allowed,
                announce_change=self._first_aid.announce_change,
            ),
        )
        self._reason = None
        logger.info("the token is ready")

    def _read_pin(self) -> str:
        try:
            return self._settings.read_pin()
        except (OSError, UnicodeDecodeError) as error:
            logger.warning("the PIN file cannot be read: %s", error)
            raise TokenUnavailable("the PIN file cannot be read") from None

    def _log_in(self, module: Module) -> SessionPool:
        settings = self._settings
        token = module.find_token(label=settings.token_label, serial=settings.token_serial)
        pin = self._read_pin()
        if not pin:
            raise TokenUnavailable("the PIN is empty")
        if self._latch.is_closed(token.serial, pin):
            raise TokenUnavailable("the PIN was refused and has not changed since")
        try:
            pool = SessionPool(
                token,
                pin,
                size=settings.sessions,
                wait_seconds=settings.session_wait_seconds,
                attribute_mapper=attribute_mapper(),
            )
        except PKCS11Error as error:
            if fault_of(error) is Fault.PIN:
                self._latch.close(token.serial, pin)
                raise TokenUnavailable("the token refuses the PIN") from None
            raise
        self._latch.open()
        return pool

    def _watch(self) -> None:
        """Return when the token is lost and no call is in flight any more, or at the end."""
        while True:
            self._suspicion.wait()
            self._suspicion.clear()
            if self._is_stopping.is_set():
                return
            if not self._is_well():
                break
        token, self._token = self.token, None
        self._reason = "the token is lost"
        logger.error("the token is lost")
        while not token.pool.drain(_DRAIN_SECONDS):
            logger.error("a call into the token does not return")

    def _is_well(self) -> bool:
        token = self.token
        try:
            with token.pool.session() as session:
                return token.is_well(session)
        except TokenUnavailable:  # all sessions are busy: whoever has them will find out
            return True
        except PKCS11Error as error:
            return fault_of(error) is Fault.BUSY


def _reason_of(error: Exception) -> str:
    match error:
        case PKCS11Error():
            return f"the token answers {name_of(error)}"
        case TokenUnavailable():
            return error.subject
        case _:
            return f"unexpected {type(error).__name__}"
