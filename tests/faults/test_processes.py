"""Workers and their master die, are replaced, reloaded and stopped: nobody else notices."""

import contextlib
import http.client
import itertools
import json
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.bench.keys import registry_of
from scripts.throwaway import Server, connected_workers, make_token
from scripts.workers import is_gone, kill, workers_of
from tests.faults.control import Fault
from tests.faults.crashing import DEATHS
from tests.faults.service import serving
from tests.http.test_http import api_of
from tests.shared.api import PREFIX, Api, b64u
from tests.shared.examples import rounds
from tests.shared.forks import server
from tests.shared.waiting import (
    ANSWER,
    LIFE,
    LONGEST_ANSWER,
    REPLACEMENT,
    START,
    STATE,
    STOP,
    are_promises_held,
    until,
)
from tests.shared.workers import kill_a_worker

UNAVAILABLE = {"error": "unavailable"}
DATA = b64u(b"data")
PATIENT = {"JOSE_HSM_SESSION_WAIT_SECONDS": "300"}
PAUSE_SECONDS = 0.0 if are_promises_held() else 0.01
"""Between requests of a client: the suite has more to do than to keep a service busy."""
FAREWELL_SECONDS = 2.0
"""For so long a connection stays open for the next request, whatever happens to its worker."""


# --- Processes ---


@pytest.fixture
def settings(tmp_path: Path) -> Mapping[str, str]:
    """A token and a registry of this test's own; nobody is refused because a worker was held up."""
    return make_token(tmp_path / "state") | PATIENT


# --- Clients ---


class Key:
    """A MAC key whose answer for ``DATA`` is known, so that a wrong result is seen."""

    def __init__(self, api: Api) -> None:
        kid = api.create(kty="oct", alg="HS256")["kid"]
        self.body = {"kid": kid, "alg": "HS256", "data": DATA}
        self.answer = {"kid": kid, "mac": api.ok("/mac", self.body)["mac"]}

    def assert_alive(self, url: str) -> None:
        assert api_of(url).ok("/mac", self.body) == self.answer


class Client(threading.Thread):
    """Uses a key again and again, on a connection of its own or on one for each request.

    ``wrong`` are results and refusals that nobody should get, ``broken`` requests that were sent
    and not answered, ``refused`` counts connections that were not made. ``cut`` counts connections
    that ended before they were accepted: whoever connects in the very moment in which the last
    process closes its listener, after it has looked for the last time, gets that. A request that
    this process, held up itself, has sent later than a service that ends waits for one is no loss.
    """

    def __init__(self, url: str, key: Key, *, keeps: bool) -> None:
        super().__init__(daemon=True)
        self._address, self._key, self._keeps = url.removeprefix("http://"), key, keeps
        self._over = threading.Event()
        self.wrong: list[str] = []
        self.broken: list[str] = []
        self.answers: Counter[int] = Counter()
        self.refused = self.cut = 0

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=ANSWER.seconds)
        while not self._over.is_set():
            is_new = connection.sock is None
            # Before the connection is there, or the last answer was: the service waits from later.
            waits_from = time.monotonic() if is_new else self._sending_from
            try:
                connection.connect() if is_new else None
            except (ConnectionRefusedError, ConnectionResetError) as error:
                self.refused += isinstance(error, ConnectionRefusedError)
                self.cut += isinstance(error, ConnectionResetError)
                time.sleep(0.02)
                continue
            try:
                self._ask(connection)
            except (OSError, http.client.HTTPException) as error:
                if self._sent_at - waits_from < FAREWELL_SECONDS:
                    self._note(error, is_new=is_new)
                connection.close()
            if not self._keeps:
                connection.close()
            time.sleep(PAUSE_SECONDS)
        connection.close()

    def _note(self, error: Exception, *, is_new: bool) -> None:
        if is_new and isinstance(error, ConnectionResetError | BrokenPipeError):
            self.cut += 1
        else:
            self.broken.append(repr(error))

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        self._sending_from = time.monotonic()
        try:
            connection.request(
                "POST",
                f"{PREFIX}/mac",
                json.dumps(self._key.body),
                {"Content-Type": "application/json"},
            )
        finally:
            self._sent_at = time.monotonic()
        response = connection.getresponse()
        body = json.loads(response.read())
        self.answers[response.status] += 1
        if response.status == 200:
            if body != self._key.answer:
                self.wrong.append(f"200 {body}")
        elif response.status != 503 or body.get("error") != "unavailable":
            self.wrong.append(f"{response.status} {body}")

    def stop(self) -> None:
        self._over.set()
        self.join(LONGEST_ANSWER.seconds)
        assert not self.is_alive(), "a client hangs"


@contextmanager
def load(url: str, key: Key, *, clients: int = 6) -> Iterator[list[Client]]:
    """Use ``key`` all the time during one ``with`` block, half on kept connections."""
    everybody = [Client(url, key, keeps=number % 2 == 0) for number in range(clients)]
    for client in everybody:
        client.start()
    try:
        until(lambda: all(client.answers for client in everybody))
        yield everybody
    finally:
        for client in everybody:
            client.stop()
    assert [client.wrong for client in everybody if client.wrong] == []


def answers(clients: list[Client]) -> Counter[int]:
    return sum((client.answers for client in clients), Counter())


def wait_for_answers(clients: list[Client], *, more: int = 10) -> None:
    """Return when more than so many more are good."""
    seen = answers(clients)[200]
    until(lambda: answers(clients)[200] > seen + more)


def broken(clients: list[Client]) -> list[str]:
    return [error for client in clients for error in client.broken]


def refused(clients: list[Client]) -> int:
    return sum(client.refused for client in clients)


def cut(clients: list[Client]) -> int:
    return sum(client.cut for client in clients)


def assert_only_the_last_to_come_were_cut(clients: list[Client]) -> None:
    """Nobody twice, for whoever comes again is refused; and one at most where nothing stands still.

    A process that is held up between its last look and the end of its listener cuts off all who
    come meanwhile.
    """
    assert max(client.cut for client in clients) <= 1
    assert cut(clients) <= (1 if are_promises_held() else len(clients))


# --- The start ---


def assert_eight_workers_boot(settings: Mapping[str, str], log: Path, key: Key | None) -> Key:
    with log.open("wb") as output, server(settings, workers=8, log=output) as started:
        key = key or Key(api_of(started.url))
        until(lambda: all(is_served(started.url, key) for _ in range(40)))
        until(lambda: connected_workers(started.url, timeout_seconds=STATE.seconds) == 8)
        with load(started.url, key, clients=16) as clients:
            pids = set(workers_of(started.process.pid))
            wait_for_answers(clients, more=200)
            assert set(workers_of(started.process.pid)) == pids, "a worker died at its boot"
        assert broken(clients) == []
        assert cut(clients) == 0
        assert set(answers(clients)) == {200}
    printed = log.read_text()
    assert "Worker (pid:" not in printed, "a worker died at its boot"
    assert "not connected" not in printed
    assert "Traceback" not in printed
    return key


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.long)])
def test_eight_workers_boot_at_once(settings, tmp_path, rounds):
    key = None
    for _ in range(rounds):
        key = assert_eight_workers_boot(settings, tmp_path / "log", key)


@pytest.mark.parametrize("rounds", [2, pytest.param(40, marks=pytest.mark.long)])
def test_workers_killed_while_they_boot_leave_a_token_that_works(settings, rounds):
    with server(settings, workers=1) as started:
        key = Key(api_of(started.url))
    for number in range(rounds):
        with server(settings) as started:
            until(partial(workers_of, started.process.pid))
            time.sleep(0.04 * (number % 10))
            for _ in workers_of(started.process.pid):
                kill_a_worker(started.process.pid)
            until(partial(is_served, started.url, key))
    tokens = Path(settings["JOSE_HSM_STATE_DIR"], "tokens").glob("*/token.object")
    assert [path.stat().st_size > 0 for path in tokens] == [True]


def is_served(url: str, key: Key, *, may_wait: bool = True) -> bool:
    """Ask once, on a new connection; any answer but that of the key must be 503.

    That is what a worker says that waits before it loads the service, if one ``may_wait``.
    """
    try:
        answer = api_of(url).post("/mac", key.body)
    except requests.RequestException:  # of a worker that was killed
        return False
    if answer.status == 200:
        assert answer.body == key.answer
        return True
    assert may_wait
    assert answer.refusal == (503, "unavailable")
    return False


# --- Deaths at the start ---


@contextmanager
def dying(cause: str, settings: Mapping[str, str], directory: Path, workers: int) -> Iterator[Any]:
    """Serve what dies of ``cause`` as long as ``directory/cause`` exists."""
    (directory / "cause").touch()
    (directory / "loads").touch()
    environment = {
        **settings,
        "LOADS": str(directory / "loads"),
        "CAUSE": str(directory / "cause"),
    }
    with (directory / "log").open("wb") as log:
        application = f"tests.faults.crashing:dies_of({cause!r})"
        with server(
            environment, workers=workers, application=application, log=log, are_mortal=True
        ) as started:
            yield started


def loads(directory: Path) -> list[float]:
    return [float(line) for line in (directory / "loads").read_text().split()]


OFTEN = ("segfault", "watchdog later", "exit 3", "exception")
every_death = pytest.mark.parametrize(
    "cause",
    [pytest.param(cause, marks=[] if cause in OFTEN else pytest.mark.long) for cause in DEATHS],
)


@every_death
def test_a_worker_that_dies_at_its_start_comes_back_ever_later(cause, settings, tmp_path):
    with dying(cause, settings, tmp_path, workers=1) as started:
        until(lambda: len(loads(tmp_path)) >= 3)
        times = loads(tmp_path)
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert pauses[0] >= 0.3
        assert pauses[1] >= 0.7
        # Meanwhile clients are told, and the process says that it lives.
        answer = until(lambda: unavailable(started.url))
        assert int(answer.headers["Retry-After"]) > 0
        assert started.process.poll() is None
        (tmp_path / "cause").unlink()
        until(lambda: is_loaded(started.url), within=START)


def is_loaded(url: str) -> bool:
    """Tell whether a worker answers that has loaded its service, and does not die over it."""
    try:
        return requests.get(url, timeout=LIFE.seconds).status_code == 200
    except requests.RequestException:
        return False


def unavailable(url: str) -> Any:
    """Return the answer of a worker that waits; ``None`` if one dies over the question."""
    try:
        answer = api_of(url).post("/mac", {})
        live = requests.get(f"{url}/health/live", timeout=LIFE.seconds)
        ready = requests.get(f"{url}/health/ready", timeout=LIFE.seconds)
    except requests.RequestException:
        return None
    if answer.status == 200 or live.status_code != 200:
        return None
    assert answer.refusal == (503, "unavailable")
    if ready.status_code != 200:
        assert ready.json()["description"].startswith("starting: starting: ")
    return answer


LONG_RUNS = tuple(itertools.product(("segfault", "watchdog later", "exception"), (1, 2, 8)))


@pytest.fixture(scope="module")
def loads_of_a_minute(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Any, int]:
    """Return how often workers were loaded in a minute, a while after each service began.

    The services of all ``LONG_RUNS`` die side by side, as most of it is waiting.
    """
    begins = {}
    with contextlib.ExitStack() as services:
        for cause, workers in LONG_RUNS:
            directory = tmp_path_factory.mktemp("dying")
            settings = make_token(directory / "state")
            services.enter_context(dying(cause, settings, directory, workers=workers))
            begins[cause, workers] = directory, time.monotonic() + (150 if workers == 8 else 75)
        time.sleep(150 + 60)
    return {
        run: sum(begin <= at < begin + 60 for at in loads(directory))
        for run, (directory, begin) in begins.items()
    }


@pytest.mark.long
@pytest.mark.parametrize(("cause", "workers"), LONG_RUNS)
def test_in_the_long_run_no_minute_sees_six_boots(cause, workers, loads_of_a_minute):
    assert loads_of_a_minute[cause, workers] < 6


def test_a_worker_that_was_of_use_is_replaced_at_once(settings):
    with server(settings, workers=1) as started:
        key = Key(api_of(started.url))
        for _ in range(rounds(4, short=2)):
            time.sleep(1.1)  # who dies within a second has died at once, of use or not
            kill_a_worker(started.process.pid)
            until(lambda: is_served(started.url, key, may_wait=False), within=REPLACEMENT)


# --- Slots and dumps ---


def told(url: str) -> Any:
    return requests.get(url, timeout=STATE.seconds).json()


def told_if_it_lives(url: str) -> Any:
    """Return the same; nothing if it was asked of a worker that has just been killed."""
    try:
        return told(url)
    except requests.RequestException:
        return {}


def test_workers_have_the_smallest_free_numbers_over_reloads(settings):
    application = "tests.faults.crashing:tells"
    with server(settings, workers=3, application=application) as started:
        slots: dict[int, int] = {}
        for _ in range(3):
            until(lambda: note(slots, started))
            reload_all(started)
        kill_a_worker(started.process.pid)
        until(lambda: note(slots, started))
    assert len(slots) > 3
    assert set(slots.values()) <= set(range(6))


def reload_all(started: Server) -> None:
    """Return when no worker is left of those that there were, and their master knows."""
    old = [Path(f"/proc/{pid}") for pid in workers_of(started.process.pid)]
    started.process.send_signal(signal.SIGHUP)
    until(lambda: not any(process.exists() for process in old))


def note(slots: dict[int, int], started: Server) -> bool:
    """Ask until all three workers have said their number; no two have the same."""
    answer = told_if_it_lives(started.url)
    if "slot" not in answer:  # of one that waits after its predecessor's early death
        return False
    slots[answer["pid"]] = answer["slot"]
    living = [slots[pid] for pid in workers_of(started.process.pid) if pid in slots]
    assert len(set(living)) == len(living)
    return len(living) == 3


def test_who_comes_is_served_by_the_worker_with_fewest_connections(settings):
    application = "tests.faults.crashing:tells"
    with server(settings, application=application) as started, contextlib.ExitStack() as kept:
        until(lambda: len({told(started.url)["pid"] for _ in range(8)}) == 2)

        def connect(
            number: int, kept: contextlib.ExitStack
        ) -> dict[http.client.HTTPConnection, int]:
            address = started.url.removeprefix("http://")
            timeout = ANSWER.seconds
            new = [http.client.HTTPConnection(address, timeout=timeout) for _ in range(number)]
            return {kept.enter_context(contextlib.closing(each)): server_of(each) for each in new}

        def spread() -> dict[http.client.HTTPConnection, int] | None:
            """Connect 24 times; ``None`` if a worker was held up, and the other has taken all."""
            with contextlib.ExitStack() as new:
                found = connect(24, new)
                counts = Counter(found.values())
                if len(counts) < 2 or min(counts.values()) < 8:
                    return None
                kept.push(new.pop_all())
                return found

        first = until(spread)
        emptied = next(iter(first.values()))
        others = [each for each, pid in first.items() if pid != emptied]
        for connection in first.keys() - others:
            connection.close()

        def are_evened_out() -> bool:
            with contextlib.ExitStack() as new:
                second = list(connect(len(others), new).values())
                return second.count(emptied) >= len(others) - 2

        until(are_evened_out)  # as soon as the worker has noticed that it has none


def server_of(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/")
    return int(json.loads(connection.getresponse().read())["pid"])


def test_a_worker_leaves_no_core_dump(settings):
    application = "tests.faults.crashing:tells"
    with server(settings, workers=1, application=application) as started:
        answer = told(started.url)
        assert answer["dumpable"] == 0
        assert resource.prlimit(answer["pid"], resource.RLIMIT_CORE) == (0, 0)
        assert resource.prlimit(started.process.pid, resource.RLIMIT_CORE) == (0, 0)


# --- Death, reload and end under load ---


def test_a_worker_killed_while_it_creates_keys_holds_up_nobody(settings):
    with server(settings) as started:
        made: list[str] = []
        over = threading.Event()
        creators = [
            threading.Thread(target=create, args=(started.url, made, over)) for _ in range(4)
        ]
        for creator in creators:
            creator.start()
        try:
            for _ in range(rounds(5, short=3)):
                wait_for_one_more(made)
                kill_a_worker(started.process.pid)
        finally:
            over.set()
            for creator in creators:
                creator.join()
        api = api_of(started.url)
        for kid in made:  # those who wait to start again say so
            until(partial(is_alive, api, kid))


def wait_for_one_more(made: list[str]) -> None:
    seen = len(made)
    until(lambda: len(made) > seen)


def is_alive(api: Api, kid: str) -> bool:
    answer = api.post("/mac", {"kid": kid, "alg": "HS256", "data": ""})
    assert answer.status == 200 or answer.refusal == (503, "unavailable")
    return answer.status == 200


def create(url: str, made: list[str], over: threading.Event) -> None:
    while not over.is_set():
        try:
            answer = api_of(url).post("/keys", {"kty": "oct", "alg": "HS256"})
        except requests.RequestException:  # the worker was killed
            continue
        if answer.status == 200:
            made.append(answer.body["kid"])
        else:
            assert answer.refusal == (503, "unavailable")


def test_a_stop_under_load_cuts_nobody_off(settings, tmp_path):
    with serving(tmp_path, settings=settings, workers=2, JOSE_HSM_CALL_SECONDS="600") as service:
        service.wait_until_ready(within=START)  # both workers
        key, registry = Key(service.api), registry_of(service.settings)
        service.inject(Fault(function="C_GenerateKey", hangs=True))
        slow: list[int] = []

        def generate() -> None:
            slow.append(service.api.post("/keys", {"kty": "oct", "alg": "HS256"}).status)

        def is_under_way() -> bool:
            now = datetime.now(UTC)
            return bool(registry.unfinished(here_before=now, before=now))

        generator = threading.Thread(target=generate)
        with load(service.url, key) as clients:
            generator.start()
            until(is_under_way)
            service.process.send_signal(signal.SIGTERM)
            until(lambda: refused(clients))
            assert slow == []
            service.heal()
            generator.join()
            assert service.process.wait(timeout=STOP.seconds) == 0
        assert broken(clients) == []
        assert_only_the_last_to_come_were_cut(clients)
        assert set(answers(clients)) == {200}
        assert slow == [200]


def test_reloads_under_load_lose_no_request(settings):
    with server(settings) as started:
        key = Key(api_of(started.url))
        with load(started.url, key) as clients:
            for _ in range(3):
                reload_all(started)
                wait_for_answers(clients)
        assert broken(clients) == []
        assert cut(clients) == 0
        assert refused(clients) == 0
        assert set(answers(clients)) == {200}


def test_workers_that_are_replaced_by_number_lose_no_request(settings):
    recycled = {"GUNICORN_CMD_ARGS": "--max-requests 50 --max-requests-jitter 20"}
    with server({**settings, **recycled}) as started:
        key = Key(api_of(started.url))
        with load(started.url, key) as clients:
            for _ in range(3):
                wait_for_others(started)
        assert broken(clients) == []
        assert cut(clients) == 0
        assert refused(clients) == 0
        assert set(answers(clients)) == {200}


def wait_for_others(started: Server) -> None:
    """Return when each worker that there is has been replaced."""
    before = set(workers_of(started.process.pid))
    until(lambda: before.isdisjoint(workers_of(started.process.pid)))


def test_a_worker_without_memory_fails_alone(settings):
    with server(settings) as started:
        api = api_of(started.url)
        key = Key(api)
        aes = api.create(kty="oct", alg="A256GCM")["kid"]
        pid = workers_of(started.process.pid)[0]
        size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (size // 2, size // 2))
        large = {"kid": aes, "alg": "dir", "enc": "A256GCM", "data": b64u(bytes(2**20))}

        def encrypt(_: int) -> int:
            try:
                return api_of(started.url).post("/encrypt", large).status
            except requests.RequestException:  # the worker was not even able to answer
                return 0

        seen: Counter[int] = Counter()

        def has_failed(clients: ThreadPoolExecutor) -> bool:
            """Ask; it fails at a request, or ends before it has accepted any, and the other not."""
            seen.update(clients.map(encrypt, range(24)))
            return seen[200] > 0 and (seen.total() > seen[200] or is_gone(pid))

        with ThreadPoolExecutor(16) as clients:
            until(lambda: has_failed(clients))  # when what the worker had in store is used up
        assert set(seen) <= {0, 200, 500, 503}
        kill(pid)
        until(lambda: pid not in workers_of(started.process.pid))
        until(lambda: all(is_served(started.url, key) for _ in range(10)))


FORKED = """
import runpy, time
from pathlib import Path
from app.operator.serving import CONFIGURATION
globals().update(runpy.run_path(str(CONFIGURATION)))
graceful_timeout = 600
def post_fork(server, worker):
    Path({path!r}).touch()
    time.sleep(1)
"""


def test_a_stop_is_not_lost_on_a_worker_that_has_just_been_forked(settings, tmp_path):
    forked, configuration = tmp_path / "forked", tmp_path / "gunicorn.conf.py"
    configuration.write_text(FORKED.format(path=str(forked)))
    with server(settings, workers=1, configuration=str(configuration)) as started:
        until(forked.exists)
        started.process.terminate()
        assert started.process.wait(STOP.seconds) == 0


def test_workers_without_their_master_end_and_another_takes_over(settings):
    with server(settings) as started:
        key = Key(api_of(started.url))
        workers = workers_of(started.process.pid)
        with load(started.url, key) as clients:
            started.process.kill()
            until(lambda: refused(clients))
        assert broken(clients) == []
        assert_only_the_last_to_come_were_cut(clients)
        until(lambda: all(map(is_gone, workers)))
        with socket.create_server(("127.0.0.1", int(started.url.rpartition(":")[2]))):
            pass
    with server(settings) as again:
        key.assert_alive(again.url)
