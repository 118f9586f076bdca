"""What befalls the service."""

import collections
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Final

from scripts.trials.soak.ends import EXPLAINED_SECONDS
from scripts.trials.soak.forgers import Forgers
from scripts.trials.soak.latencies import Latencies
from scripts.trials.soak.slow_clients import crawl
from scripts.trials.soak.victim import Victim
from tests.faults.control import EVERY, Fault
from tests.faults.service import Service

SHORT_HANG_SECONDS: Final = 1.0
LONGEST_HANG_SECONDS: Final = 15

ERRORS: Final = {
    "CKR_DEVICE_ERROR": 0x30,
    "CKR_DEVICE_REMOVED": 0x32,
    "CKR_HOST_MEMORY": 0x02,
    "CKR_OPERATION_ACTIVE": 0x90,
    "CKR_SESSION_CLOSED": 0xB0,
    "CKR_SESSION_COUNT": 0xB1,
    "CKR_SESSION_HANDLE_INVALID": 0xB3,
    "CKR_USER_NOT_LOGGED_IN": 0x101,
}
STRUCK: Final = tuple(
    """
    C_OpenSession C_FindObjectsInit C_FindObjects C_GetAttributeValue C_SignInit C_Sign
    C_EncryptInit C_Encrypt C_DecryptInit C_Decrypt C_VerifyInit C_GenerateKey C_GenerateKeyPair
    C_WrapKey C_UnwrapKey C_DestroyObject C_GenerateRandom
    """.split()  # noqa: SIM905  # as in the standard, and readable
)
CORRUPTED: Final = ("C_Encrypt", "C_Sign")


class Trouble:
    """What befalls the service, one thing after the other."""

    def __init__(self, service: Service, forgers: Forgers, latencies: Latencies) -> None:
        self._service = service
        self._forgers = forgers
        self._latencies = latencies
        self.kinds: collections.Counter[str] = collections.Counter()

    def make(self, deadline: float) -> None:
        """Go on until ``deadline``, each kind once before one comes again; then a little peace."""
        kinds: Sequence[Callable[[], None]] = (
            self._error,
            self._error,
            self._delay,
            self._corruption,
            self._short_hang,
            self._outage,
            self._nothing_found,
            self._kill,
            self._long_hang,
            self._reload,
            self._locked_registry,
            self._slow_clients,
            self._forged_tokens,
            self._peace,
        )
        while time.monotonic() < deadline:
            for kind in random.sample(kinds, len(kinds)):
                if time.monotonic() < deadline:
                    self._make(kind)

    def _make(self, kind: Callable[[], None]) -> None:
        name = kind.__name__.strip("_").replace("_", " ")
        self.kinds[name] += 1
        if kind in {self._slow_clients, self._forged_tokens, self._peace}:
            self._service.wait_until_ready()  # so that it is known what callers wait for
        with self._latencies.during(name):
            kind()
        self._service.heal()
        time.sleep(random.uniform(0.5, 3))

    # --- Callers ---

    def _peace(self) -> None:
        time.sleep(random.uniform(4, 8))

    def _slow_clients(self) -> None:
        crawl(self._service.url, random.uniform(4, 8))

    def _forged_tokens(self) -> None:
        self._forgers.attack(random.uniform(4, 8))

    # --- The registry ---

    def _locked_registry(self) -> None:
        """Let nothing be written for a while, longer than the service waits."""
        with closing(sqlite3.connect(self._service.registry, isolation_level=None)) as other:
            with suppress(sqlite3.OperationalError):  # the workers are quicker
                other.execute("BEGIN EXCLUSIVE")
            time.sleep(random.uniform(1, 4))

    # --- The token ---

    @contextmanager
    def _lasting(self, *faults: Fault, seconds: float) -> Iterator[None]:
        self._service.inject(*faults)
        yield
        time.sleep(seconds)

    def _error(self) -> None:
        fault = Fault(
            function=random.choice(STRUCK),
            value=random.choice(list(ERRORS.values())),
            afterwards=random.choice([False, True]),
            probability=random.choice([0.05, 0.5, 1]),
        )
        with self._lasting(fault, seconds=random.uniform(0.2, 2)):
            pass

    def _delay(self) -> None:
        fault = Fault(function=random.choice(STRUCK), delay_seconds=random.uniform(0.02, 0.5))
        with self._lasting(fault, seconds=random.uniform(1, 4)):
            pass

    def _corruption(self) -> None:
        fault = Fault(function=random.choice(CORRUPTED), corrupts=True, probability=0.3)
        Victim.corruption_until = float("inf")
        with self._lasting(fault, seconds=random.uniform(0.5, 2)):
            pass
        self._service.heal()
        Victim.corruption_until = time.monotonic() + EXPLAINED_SECONDS

    def _nothing_found(self) -> None:
        fault = Fault(function="C_FindObjects", finds_nothing=True)
        with self._lasting(fault, seconds=random.uniform(0.2, 1)):
            pass

    def _outage(self) -> None:
        fault = Fault(function=EVERY, value=ERRORS["CKR_DEVICE_ERROR"])
        with self._lasting(fault, seconds=random.uniform(0.2, 4)):
            pass

    def _short_hang(self) -> None:
        with self._lasting(
            Fault(function=random.choice(STRUCK), hangs=True), seconds=SHORT_HANG_SECONDS
        ):
            pass

    def _long_hang(self) -> None:
        before = set(self._service.workers)
        self._service.inject(Fault(function="C_Sign", hangs=True, times=1))
        deadline = time.monotonic() + LONGEST_HANG_SECONDS
        while before <= set(self._service.workers) and time.monotonic() < deadline:
            time.sleep(0.1)

    # --- The workers ---

    def _kill(self) -> None:
        with suppress(ProcessLookupError, IndexError):
            self._service.kill_worker(random.choice(self._service.workers))

    def _reload(self) -> None:
        self._service.reload()
