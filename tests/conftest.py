"""A token and a registry that live and die with the test session, and servers on them."""

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from app import current_request
from app.config import Config
from app.factory import create_app
from app.service import service_of
from hsm import Hsm
from scripts.throwaway import ROOT, make_registry, make_token
from scripts.tokens import TOKENS
from tests.shared.api import Api, NotOffered
from tests.shared.callers import WITH_TOKENS, Callers
from tests.shared.command import with_kek
from tests.shared.examples import examples
from tests.shared.forks import COMMON, MAKE, proven, server
from tests.shared.in_process import sender
from tests.shared.injector import Injector
from tests.shared.nursery import believe
from tests.shared.postgresql import Cluster
from tests.shared.postgresql import running as running_postgresql
from tests.shared.tokens import reason_against
from tests.shared.waiting import HELD, START, until

MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 2**30
PUBLISHED = {"JOSE_HSM_JWKS_KEYS": "1000000"}  # more pairs than all tests make
SERVED = {"JOSE_HSM_ADMIN_PAGE": "1"}  # all endpoints that there are
# On a busy machine a test that looks at all objects of the token takes longer than a call may: then
# the watchdog would end the process of the tests.
PATIENT = {"JOSE_HSM_CALL_SECONDS": "120"}
SETTINGS = ("GUNICORN_", "JOSE_HSM_", "PG", "WEB_CONCURRENCY")

# Tokens and registries are many small files, written through: in memory that takes no time.
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# Hundreds of services and commands are started; none should compile the same code again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

pytest_plugins = ["tests.shared.vector_counts"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let tests hold the service to the seconds that are promised."""
    parser.addoption(
        "--promised", action="store_true", help="wait as long as is promised, on a quiet machine"
    )
    # What needs no file of SoftHSM's runs on another token too (test_other_tokens.py).
    parser.addoption("--token", choices=TOKENS, default="softhsm", help="the make of token")


def pytest_configure(config: pytest.Config) -> None:
    """Let all processes of the tests know, and properties be tried as often as there is time."""
    os.environ[MAKE] = config.getoption("--token")
    if reason := reason_against(os.environ[MAKE]):
        pytest.exit(f"no test was run: {reason}", returncode=0)
    if config.getoption("--promised"):
        os.environ[HELD] = "1"
    else:  # for each part of a key that it reads, NSS hashes its password 10,000 times
        os.environ["NSS_MAX_MP_PBE_ITERATION_COUNT"] = "1"
    if COMMON not in os.environ:  # the first process; those that it starts find its directory
        # Services and commands have the settings of tests, and none of whoever runs the tests.
        for name in [name for name in os.environ if name.startswith(SETTINGS)]:
            del os.environ[name]
        directory = tempfile.TemporaryDirectory(prefix="jose-hsm-tests-")
        os.environ[COMMON] = directory.name
        config.add_cleanup(directory.cleanup)
        # Services are on this machine: its proxy, if it has one, would look for them elsewhere.
        others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "localhost"
        os.environ["no_proxy"] = f"{others},127.0.0.1"
    # Whether an example is right is the claim, and not how soon: the machine may do much else.
    # The suite tries the same ones each time, and new ones are looked for where promises are held.
    hypothesis.settings.register_profile(
        "suite",
        deadline=None,
        database=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
        derandomize=HELD not in os.environ,
        max_examples=examples(200),
    )
    hypothesis.settings.load_profile("suite")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect without looking for garbage, of which there is none; nor is it looked for later."""
    gc.disable()
    try:
        is_whole = session.config.args_source is pytest.Config.ArgsSource.TESTPATHS
        if is_whole and (number := os.environ.get("PYTEST_XDIST_WORKER")):
            count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
            _import_tests(int(number.removeprefix("gw")) / count)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _import_tests(part: float) -> None:
    """Import all test files, and begin after that part of them.

    Pytest rewrites each file and keeps what it has made of it. Processes that read the same ones at
    the same time would all do that: so they find most files done.
    """
    files = [path.relative_to(ROOT) for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    first = int(len(files) * part)
    for path in files[first:] + files[:first]:
        with suppress(Exception, pytest.skip.Exception):  # who collects it will say what is wrong
            import_module(".".join(path.with_suffix("").parts))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about SoftHSM alone on another token."""
    make = config.getoption("--token")
    if make != "softhsm":
        for item in items:
            if item.get_closest_marker("softhsm"):
                item.add_marker(pytest.mark.skip(reason=f"about SoftHSM, and this is {make}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a test whose fixtures use what the token is known to lack."""
    with _lacking(item.config):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a test that does so itself; refuse one in whose request the next test would act."""
    try:
        with _lacking(item.config):
            result = yield
        assert current_request.current() is None, "the test has not ended its request"
    finally:
        current_request.end()
    return result


@contextmanager
def _lacking(config: pytest.Config) -> Iterator[None]:
    try:
        yield
    except NotOffered as error:
        lacking = error.names & TOKENS[config.getoption("--token")].lacks
        if not lacking:
            raise
        pytest.skip(f"the token lacks {', '.join(sorted(lacking))}")


@pytest.fixture(scope="session")
def lacks(request: pytest.FixtureRequest) -> frozenset[str]:
    """What the token is known to lack."""
    return TOKENS[request.config.getoption("--token")].lacks


@pytest.fixture(scope="session")
def softhsm(request: pytest.FixtureRequest) -> None:
    """Skip what is claimed of SoftHSM, as which kinds of keys it unwraps."""
    if request.config.getoption("--token") != "softhsm":
        pytest.skip("another token unwraps other kinds of keys: see test_other_tokens.py")


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Where the published test vectors are: JOSE_TEST_VECTORS, else beside the checkout."""
    path = Path(os.environ.get("JOSE_TEST_VECTORS", ROOT.parent / "shared" / "vectors"))
    if not path.is_dir():
        pytest.skip(f"no test vectors at {path}; set JOSE_TEST_VECTORS")
    return path


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL of this process."""
    with running_postgresql() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/registry.db"
    cluster: Cluster = request.getfixturevalue("postgresql")
    return cluster.empty()


@pytest.fixture(params=["sqlite", "postgresql"])
def registry_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new registry, of each kind."""
    if request.param == "sqlite":
        return make_registry(tmp_path / "registry.db")
    cluster: Cluster = request.getfixturevalue("postgresql")
    return cluster.registry()


@pytest.fixture(scope="session")
def environment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The settings that name the token and the registry of this test session."""
    make = request.config.getoption("--token")
    state_dir = tmp_path_factory.mktemp("session") / "state"
    settings = make_token(state_dir, make) | PUBLISHED | SERVED | PATIENT
    return with_kek(settings) if make == "softhsm" else settings


@pytest.fixture(scope="session")
def config(environment: Mapping[str, str]) -> Config:
    """The settings of this process; the token library reads its own from the environment."""
    os.environ.update({n: v for n, v in environment.items() if not n.startswith("JOSE_HSM_")})
    return Config.from_env(environment)


@pytest.fixture(scope="session")
def application(config: Config) -> Any:
    """The service in this process. A process has one PKCS#11 library, so there is one of it."""
    if (proofs := proven()) is not None:
        believe(proofs, str(config.pkcs11_module))
    application = create_app(config)
    wait_for(service_of(application).hsm)
    service_of(application).janitor.stop()  # tests look at what it would clear away
    service_of(application).rotation.stop()  # and make the steps of key sets themselves
    service_of(application).uses.stop()  # and write which keys they have used
    return application


def wait_for(token: Hsm) -> None:
    """Return when ``token`` is ready."""
    until(lambda: token.reason is None, within=START)


@pytest.fixture
def token(application: Any) -> Hsm:
    """The token of this process."""
    return service_of(application).hsm


@pytest.fixture
def chaos(config: Config, token: Hsm) -> Iterator[Injector]:
    """Faults in this process, healed afterwards."""
    chaos = Injector(config.pkcs11_module)
    yield chaos
    chaos.heal()
    # Else what the canary has met, or is meeting now, befalls the next test.
    token._connection.suspect()
    until(lambda: not token._connection._suspicion.is_set())
    wait_for(token)


@pytest.fixture(scope="session")
def local(application: Any) -> Api:
    """The service in this process, called without a network: for what needs many calls."""
    return Api(sender(application))


@contextmanager
def running(environment: Mapping[str, str], *, workers: int = 2) -> Iterator[str]:
    """Serve with gunicorn on a free port; give the base URL."""
    with server(environment, workers=workers) as started:
        yield started.url


# A service that stands idle takes as much time in ten seconds as its start takes: so each of those
# below ends with the file that asked for it, and the next file has one of its own.


@pytest.fixture(scope="module", name="server")
def _server(request: pytest.FixtureRequest, environment: Mapping[str, str]) -> Iterator[str]:
    """The base URL of a live gunicorn with two workers, or with one where the token wants that."""
    workers = TOKENS[request.config.getoption("--token")].workers
    with running(environment, workers=workers) as url:
        yield url


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[str]]:
    """Serve with settings of one's own: ``with serve(environment | {...}) as url``."""
    return running


@pytest.fixture(scope="module")
def live(server: str) -> Api:
    """The live service."""
    return Api.over_http(server)


@pytest.fixture(scope="module")
def rsa1_5(environment: dict[str, str]) -> Iterator[Api]:
    """The live service where RSA1_5 is switched on."""
    with running(environment | {"JOSE_HSM_RSA1_5": "1"}, workers=1) as url:
        yield Api.over_http(url)


@pytest.fixture(scope="module")
def callers_on_sqlite(environment: dict[str, str]) -> Iterator[Callers]:
    """The live service with API tokens, and several who have one."""
    settings = environment | WITH_TOKENS
    with running(settings) as url:
        yield Callers.of(settings, url)


@pytest.fixture(scope="session")
def _on_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The settings where PostgreSQL has the registry: one that no other test stops or holds up."""
    state_dir = tmp_path_factory.mktemp("postgresql") / "state"
    settings = make_token(state_dir) | PUBLISHED | PATIENT | WITH_TOKENS
    with running_postgresql() as cluster:
        settings["JOSE_HSM_DATABASE_URL"] = cluster.registry()
        yield with_kek(settings)


@pytest.fixture(scope="module")
def callers_on_postgresql(_on_postgresql: dict[str, str]) -> Iterator[Callers]:
    """The same, where PostgreSQL has the registry."""
    with running(_on_postgresql) as url:
        yield Callers.of(_on_postgresql, url)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def callers_of_each(request: pytest.FixtureRequest) -> Callers:
    """Those of each kind of registry, for claims that it has a part in."""
    callers: Callers = request.getfixturevalue(f"callers_on_{request.param}")
    return callers


@pytest.fixture(scope="module")
def callers(callers_on_sqlite: Callers) -> Callers:
    """Those of SQLite."""
    return callers_on_sqlite
