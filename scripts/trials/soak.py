"""Use keys from many clients while everything that can fail does, at random.

    python -m scripts.trials.soak --minutes 15 --seed 7

Serves a throw-away token whose workers suffer errors, delays, corrupted results, hangs and
outages, and are killed, reloaded and recycled. Afterwards every kid that was returned has to work,
and ``jose-hsm reconcile`` has to leave nothing. Prints a table; exits with 1 if anything that must
be 0 is not, or if memory, file descriptors or threads of the workers grew beyond their bounds.
"""

import argparse
import collections
import random
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple

import requests

from scripts.trials.mixed_load import Client
from tests.faults.control import EVERY, Fault
from tests.faults.service import Service, serving, use

WORKERS: Final = 2
CLIENTS: Final = 8
REQUESTS_OF_A_WORKER: Final = 5000
WARM_UP_SECONDS: Final = 8
FIGURES_SECONDS: Final = 3  # they are shared every second
EXPLAINED_SECONDS: Final = 3.0
CALL_SECONDS: Final = 4
SHORT_HANG_SECONDS: Final = 1.0
LONGEST_HANG_SECONDS: Final = 15

# What a worker may have at the end above what it had when warm.
MEMORY_MIB: Final = 48
DESCRIPTORS: Final = 24
THREADS: Final = 8

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

_CUT_OFF: Final = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)


class Ends:
    """When workers were seen to end: what cuts requests off, and nothing else may."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._moments: list[float] = []
        self._is_over = threading.Event()

    def close(self) -> None:
        """Look no more."""
        self._is_over.set()

    def watch(self) -> None:
        """Look until it is over."""
        seen = set(self._service.workers)
        while not self._is_over.wait(0.05):
            now = set(self._service.workers)
            self._moments += [time.monotonic()] * len(seen - now)
            seen = now

    @property
    def number(self) -> int:
        """How many have ended."""
        return len(self._moments)

    def explain(self, moment: float) -> bool:
        """Tell whether a worker ended about ``moment``."""
        return any(abs(moment - end) < EXPLAINED_SECONDS for end in self._moments)


class Victim(Client):
    """A client that takes 503 for an answer, and goes on when it is cut off."""

    corruption_until = 0.0

    def __init__(self, url: str, shared: "collections.deque[dict[str, Any]]") -> None:
        super().__init__(url, shared)
        self.living: dict[str, dict[str, Any]] = {}
        self.cut_off: list[float] = []
        self.false_404: list[str] = []
        self.codes: collections.Counter[str] = collections.Counter()

    def _turn(self) -> None:
        try:
            super()._turn()
        except _CUT_OFF:
            self.cut_off.append(time.monotonic())
        except requests.Timeout:
            self.wrong.append("no answer")

    def _create(self) -> Any:
        key = super()._create()
        if key:
            self.living[key["kid"]] = key
        return key

    def _destroy(self, kid: str) -> None:
        del self.living[kid]  # whatever becomes of it now
        super()._destroy(kid)

    def _note(self, path: str, response: requests.Response, expected: int) -> bool:
        status = response.status_code
        self.answers[f"{path} {status}"] += 1
        if status < HTTPStatus.BAD_REQUEST:
            return super()._judge(path, response, expected)
        if not _is_documented(response):
            self.wrong.append(f"{path}: {status} is not the documented JSON")
            return False
        self.codes[f"{status} {response.json()['error']}"] += 1
        is_corrupted = time.monotonic() < Victim.corruption_until
        if status == HTTPStatus.SERVICE_UNAVAILABLE or (
            status == HTTPStatus.INTERNAL_SERVER_ERROR and is_corrupted
        ):
            return False
        if status == HTTPStatus.NOT_FOUND != expected:
            self.false_404.append(path)
            return False
        return super()._judge(path, response, expected)


def _is_documented(response: requests.Response) -> bool:
    return response.headers["Content-Type"] == "application/json" and (
        set(response.json()) == {"error", "description"}
    )


class Trouble:
    """What befalls the service, one thing after the other."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.kinds: collections.Counter[str] = collections.Counter()

    def make(self, deadline: float) -> None:
        """Go on until ``deadline``; each trouble is followed by a little peace."""
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
        )
        while time.monotonic() < deadline:
            kind = random.choice(kinds)
            self.kinds[kind.__name__.strip("_").replace("_", " ")] += 1
            kind()
            self._service.heal()
            time.sleep(random.uniform(0.5, 3))

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

    def _kill(self) -> None:
        with suppress(ProcessLookupError, IndexError):
            self._service.kill_worker(random.choice(self._service.workers))

    def _reload(self) -> None:
        self._service.reload()


class Size(NamedTuple):
    """The largest of the workers, by each measure."""

    memory_mib: float
    descriptors: int
    threads: int


def _size(service: Service) -> Size:
    sizes = []
    for pid in service.workers:
        with suppress(OSError):  # it ends just now
            process = Path(f"/proc/{pid}")
            status = (process / "status").read_text()
            resident = int(_number_of("VmRSS", status)) / 1024
            descriptors = len(list((process / "fd").iterdir()))
            sizes.append((resident, descriptors, int(_number_of("Threads", status))))
    return Size(*map(max, zip(*sizes, strict=True)))


def _number_of(name: str, status: str) -> str:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    return found[1] if found else "0"


def _sessions(service: Service) -> dict[str, int]:
    """Return how many sessions of the live workers are lent, and how many idle."""
    text = requests.get(f"{service.url}/metrics", timeout=10).text
    found = re.findall(r'^jose_hsm_sessions\{state="(\w+)"\} ([0-9.]+)$', text, re.MULTILINE)
    return {state: round(float(number)) for state, number in found}


class Table:
    """Lines, and whether one of them is bad."""

    def __init__(self) -> None:
        self.is_bad = False

    def show(self, title: str, value: object, *, bad: bool = False) -> None:
        """Print a line."""
        self.is_bad |= bad
        print(f"{title:<56}{value!s:>12}{'  BAD' if bad else ''}", flush=True)

    def show_zero(self, title: str, number: int) -> None:
        """Print a number that must be 0."""
        self.show(title, number, bad=number > 0)

    def show_counts(self, title: str, counts: Mapping[str, int]) -> None:
        """Print numbers under a title."""
        print(title)
        for name, number in sorted(counts.items()):
            self.show(f"  {name}", number)


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    random.seed(options.seed)
    settings: dict[str, Any] = {
        "GUNICORN_CMD_ARGS": f"--max-requests {REQUESTS_OF_A_WORKER} --max-requests-jitter 500",
        "JOSE_HSM_CALL_SECONDS": str(CALL_SECONDS),
    }
    with (
        tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory,
        serving(Path(directory), workers=WORKERS, **settings) as service,
    ):
        table = Table()
        table.show("seed", options.seed)
        _soak(service, 60 * options.minutes, table)
    print("BAD: see the lines marked" if table.is_bad else "OK: nothing wrong, nothing lost")
    return int(table.is_bad)


def _soak(service: Service, seconds: float, table: Table) -> None:
    service.wait_until_ready()
    shared: collections.deque[dict[str, Any]] = collections.deque(maxlen=40)
    clients = [Victim(service.url, shared) for _ in range(CLIENTS)]
    ends, trouble = Ends(service), Trouble(service)
    deadline = time.monotonic() + WARM_UP_SECONDS + seconds
    with ThreadPoolExecutor(CLIENTS + 1) as pool, closing(ends):
        watching = pool.submit(ends.watch)
        lives = [pool.submit(client.live, deadline) for client in clients]
        time.sleep(WARM_UP_SECONDS)
        before = _size(service)
        table.show_counts("sessions, warm", _sessions(service))
        trouble.make(deadline)
        wait(lives)
        service.wait_until_ready()
        after = _size(service)
        time.sleep(FIGURES_SECONDS)
        sessions = _sessions(service)
    for done in (watching, *lives):
        done.result()
    table.show_counts("sessions, at the end", sessions)
    table.show_zero("of them never given back", sessions.get("lent", 0))
    _show_answers(table, clients, ends)
    _show_keys(table, service, clients)
    _show_workers(table, service, ends, trouble, before, after)


def _show_answers(table: Table, clients: Sequence[Victim], ends: Ends) -> None:
    answers = sum((client.answers for client in clients), collections.Counter[str]())
    codes = sum((client.codes for client in clients), collections.Counter[str]())
    table.show("requests answered", sum(answers.values()))
    table.show_counts("answers by endpoint and status", answers)
    table.show_counts("refusals by status and code", codes)
    wrong = collections.Counter(line for client in clients for line in client.wrong)
    table.show_zero("wrong answers", sum(wrong.values()))
    for line, number in wrong.most_common(10):
        print(f"  {number} of {line}")
    table.show_zero("false 404", sum(len(client.false_404) for client in clients))
    cut_off = [moment for client in clients for moment in client.cut_off]
    table.show("requests cut off", len(cut_off))
    unexplained = sum(not ends.explain(moment) for moment in cut_off)
    table.show_zero("requests cut off while no worker ended", unexplained)


def _show_keys(table: Table, service: Service, clients: Sequence[Victim]) -> None:
    living = [key for client in clients for key in client.living.values()]
    table.show("kids returned and not destroyed", len(living))
    table.show_zero("kids lost", sum(use(service.api, key) != HTTPStatus.OK for key in living))
    table.show("left half done and cleared away", _numbers(service.reconcile())[0])
    left = sum(_numbers(service.reconcile()))
    table.show_zero("differences between registry and token after that", left)


def _numbers(reconciliation: str) -> list[int]:
    return [int(number) for number in re.findall(r": (\d+)$", reconciliation, re.MULTILINE)]


def _show_workers(  # noqa: PLR0913, PLR0917  # all that was seen of them
    table: Table, service: Service, ends: Ends, trouble: Trouble, before: Size, after: Size
) -> None:
    table.show_counts("troubles by kind", trouble.kinds)
    table.show("calls into the token that met a fault", service.faults.struck())
    table.show("logins", service.faults.calls("C_Login"))
    table.show("of them re-initialisations", service.faults.calls("C_Login") - service.faults.boots)
    table.show("workers ended and replaced", ends.number)
    crashes = re.findall(r"was sent SIG(?!KILL|TERM)\w+", service.log.read_text())
    table.show_zero("of them crashed", len(crashes))
    bounds = Size(MEMORY_MIB, DESCRIPTORS, THREADS)
    for name, first, last, bound in zip(Size._fields, before, after, bounds, strict=True):
        is_bad = last > first + bound
        table.show(
            f"{name} of the largest worker, warm and at the end",
            f"{first:.0f} {last:.0f}",
            bad=is_bad,
        )


if __name__ == "__main__":
    sys.exit(main())
