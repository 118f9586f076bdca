"""Faults in every worker of a live gunicorn, by a control file that each of them watches.

A test writes ``Fault``s; a thread in each worker reads them and answers that it has. Each worker
counts its calls by function in a file that outlives it.
"""

import json
import mmap
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ctypes import c_ubyte, c_uint64, c_ulong, sizeof
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from app.service import service_of
from hsm import Phase
from scripts.workers import is_gone
from tests.shared.injector import NAMES, OK, Injector
from tests.shared.waiting import START, until

DIRECTORY: Final = "FAULTS_DIR"
EVERY: Final = "*"

_POLL_SECONDS: Final = 0.02
# What the library does by itself, also when its token is gone: struck only by name.
_OF_THE_LIBRARY: Final = ("C_Initialize", "C_Finalize", "C_GetFunctionList")

# Where a function puts its output: the index of the pointer, that of the length, and whether the
# length is a number (or where one is).
_OUTPUTS: Final[Mapping[str, tuple[int, int, bool]]] = {
    **dict.fromkeys(("C_Encrypt", "C_Decrypt", "C_Sign"), (3, 4, False)),
    "C_WrapKey": (4, 5, False),
    "C_GenerateRandom": (1, 2, True),
}
_FOUND: Final = 3  # the index of the number of objects in C_FindObjects


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What befalls calls of ``function``, the first fault of the list that fits.

    ``value`` is answered in place of the call or, ``afterwards``, when it has been done. ``times``
    counts over all workers and restarts, and only what requests call: the thread that opens the
    token and checks the canary, whenever that is, takes none of them. What only asks for the length
    of an output is let through.
    """

    function: str
    value: int = OK
    afterwards: bool = False
    delay_seconds: float = 0.0
    hangs: bool = False
    corrupts: bool = False
    finds_nothing: bool = False
    times: int | None = None
    probability: float = 1.0


class Faults:
    """The test's side: ``directory`` is shared with the workers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        (directory / "calls").mkdir(parents=True)
        self._version = 0
        self._write([])

    @property
    def environment(self) -> dict[str, str]:
        """What a worker must be told."""
        return {DIRECTORY: str(self._directory)}

    def inject(self, *faults: Fault, workers: Callable[[], Iterable[int]] = tuple) -> None:
        """Replace what is injected; return when each of ``workers`` knows.

        They are listed afterwards: who is forked later reads the new faults at once.
        """
        self._write([asdict(fault) for fault in faults])
        told = list(workers())
        until(lambda: all(self._is_told(pid) or is_gone(pid) for pid in told), within=START)

    def are_ready(self, workers: Iterable[int]) -> bool:
        """Tell whether each of ``workers`` has its token, and has found it well since it was told.

        So none is about to find out what befell it before.
        """
        return all(self._is_told(pid) and _Ledger(self._path(pid)).is_ready for pid in workers)

    def calls(self, function: str) -> int:
        """Return how often any worker has called ``function``."""
        return sum(_Ledger(path)[function] for path in self._ledgers())

    def struck(self) -> int:
        """Return how many calls have met a fault."""
        return sum(_Ledger(path).struck for path in self._ledgers())

    @property
    def boots(self) -> int:
        """How many workers there have been."""
        return len(self._ledgers())

    def _ledgers(self) -> list[Path]:
        return list((self._directory / "calls").iterdir())

    def _is_told(self, pid: int) -> bool:
        path = self._path(pid)
        return path.exists() and _Ledger(path).version == self._version

    def _path(self, pid: int) -> Path:
        return self._directory / "calls" / str(pid)

    def _write(self, faults: list[dict[str, Any]]) -> None:
        self._version += 1
        new = self._directory / "new"
        new.write_text(json.dumps({"version": self._version, "faults": faults}))
        new.replace(self._directory / "faults")


class _Ledger:
    """Numbers of one worker in a file that others may read at any time."""

    def __init__(self, path: Path) -> None:
        octets = (len(NAMES) + 3) * sizeof(c_uint64)
        with path.open("a+b") as file:
            file.truncate(octets)
            self._map = mmap.mmap(file.fileno(), octets)
        self._numbers = (c_uint64 * (len(NAMES) + 3)).from_buffer(self._map)
        self._lock = threading.Lock()

    def __getitem__(self, function: str) -> int:
        return int(self._numbers[NAMES.index(function)])

    def count(self, function: str) -> None:
        """Note a call."""
        with self._lock:
            self._numbers[NAMES.index(function)] += 1

    def count_struck(self) -> None:
        """Note a call that meets a fault."""
        with self._lock:
            self._numbers[-1] += 1

    @property
    def struck(self) -> int:
        """The calls that have met a fault."""
        return int(self._numbers[-1])

    @property
    def version(self) -> int:
        """The version of the faults that are in force."""
        return int(self._numbers[-2])

    @version.setter
    def version(self, version: int) -> None:
        self._numbers[-3] = False
        self._numbers[-2] = version

    @property
    def is_ready(self) -> bool:
        """Whether the token is there, and well since those faults are in force."""
        return bool(self._numbers[-3])

    @is_ready.setter
    def is_ready(self, is_ready: bool) -> None:
        self._numbers[-3] = is_ready


class _Worker:
    """A worker's side: counts all calls and does what the control file says."""

    def __init__(self, directory: Path, module: str, worker: Any) -> None:
        self._directory = directory
        self._worker = worker
        self._ledger = _Ledger(directory / "calls" / str(os.getpid()))
        self._faults: list[Fault] = []
        self._checked: Any = None
        self._was_well = 0  # the version that was in force
        self._mark: object = None
        self._read()
        self._injector = Injector(module)  # kept, for the library keeps only addresses
        for name in NAMES:
            self._injector.replace(name, self._replacement(name))
        threading.Thread(target=self._watch, name="faults", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(_POLL_SECONDS)
            with suppress(OSError):  # no descriptor is left: later, then
                self._read()
            with suppress(AttributeError, KeyError):  # the service is not loaded yet
                self._look_at(service_of(self._worker.wsgi).hsm)

    def _look_at(self, token: Any) -> None:
        """Have the token checked once when it is there and no fault befalls it any more."""
        version = self._ledger.version
        if self._checked is not token._connection:
            self._note_checks(token._connection)
        if token.state.phase is not Phase.READY:
            self._was_well = 0
        elif not self._faults and self._was_well != version:
            token._connection.suspect()
        self._ledger.is_ready = self._was_well == version

    def _note_checks(self, connection: Any) -> None:
        """Have it noted which faults were in force when the token was looked at and found well."""
        check = connection._is_well

        def noted(**options: Any) -> bool:
            version = self._ledger.version
            is_well: bool = check(**options)
            self._was_well = version if is_well else 0
            return is_well

        connection._is_well = noted
        self._checked = connection

    def _read(self) -> None:
        path = self._directory / "faults"
        found = path.stat()  # which costs little; there is another file for each version
        mark = found.st_ino, found.st_mtime_ns
        if mark != self._mark:
            content = json.loads(path.read_text())
            self._mark = mark
            self._faults = [Fault(**members) for members in content["faults"]]
            self._ledger.version = content["version"]

    def _replacement(self, name: str) -> Any:
        def call(original: Any, *words: int) -> int:
            self._ledger.count(name)
            output = _OUTPUTS.get(name)
            if output and not words[output[0]]:
                return int(original(*words))
            fault = next((each for each in self._faults if self._strikes(each, name)), None)
            if fault is None:
                return int(original(*words))
            self._ledger.count_struck()
            return self._suffer(fault, original, words)

        return call

    def _strikes(self, fault: Fault, name: str) -> bool:
        return (
            (fault.function == name or (fault.function == EVERY and name not in _OF_THE_LIBRARY))
            and (fault.probability >= 1 or random.random() < fault.probability)
            and (fault.times is None or self._claims(fault))
        )

    def _claims(self, fault: Fault) -> bool:
        """Take one of the times that are left, if there is any."""
        if _looks_after_the_token():
            return False
        for number in range(fault.times or 0):
            claim = self._directory / f"{self._ledger.version}-{fault.function}-{number}"
            with suppress(FileExistsError):
                claim.touch(exist_ok=False)
                return True
        return False

    def _suffer(self, fault: Fault, original: Any, words: tuple[int, ...]) -> int:
        time.sleep(fault.delay_seconds)  # without the GIL, as a token would
        while fault.hangs and fault in self._faults:
            time.sleep(_POLL_SECONDS)
        if fault.value and not fault.afterwards:
            return fault.value
        answer = int(original(*words))
        if fault.finds_nothing:
            c_ulong.from_address(words[_FOUND]).value = 0
        if fault.corrupts and answer == OK:
            _spoil(*(_output(fault.function, words)))
        return fault.value or answer


def obey(worker: Any = None) -> None:
    """Put the faults of ``FAULTS_DIR`` into this process; call after fork, before the token opens.

    Without a module that can be loaded there is nothing to do. A ``worker`` of gunicorn tells when
    its token is ready.
    """
    with suppress(OSError):
        _Worker(Path(os.environ[DIRECTORY]), os.environ["JOSE_HSM_PKCS11_MODULE"], worker)


def _looks_after_the_token() -> bool:
    return threading.current_thread().name == "hsm-connection"


def _output(function: str, words: tuple[int, ...]) -> tuple[int, int]:
    pointer, length, is_number = _OUTPUTS[function]
    octets = words[length] if is_number else c_ulong.from_address(words[length]).value
    return words[pointer], octets


def _spoil(address: int, octets: int) -> None:
    """Change the first octets, each time in another way: no two wrong results are the same."""
    for place in range(address, address + min(octets, 8)):
        octet = c_ubyte.from_address(place)
        octet.value ^= random.randrange(1, 256)
