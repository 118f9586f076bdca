"""A SoftHSM token and a registry that live and die with the test session, and servers on them."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from app import create_app
from app.config import Config
from app.registry import migrate
from tests.api import Api

ROOT = Path(__file__).parent.parent
PIN = secrets.token_hex(8)
LABEL = "test"
_READY_SECONDS = 20


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Where the published test vectors are: JOSE_TEST_VECTORS, else beside the checkout."""
    path = Path(os.environ.get("JOSE_TEST_VECTORS", ROOT.parent / "shared" / "vectors"))
    if not path.is_dir():
        pytest.skip(f"no test vectors at {path}; set JOSE_TEST_VECTORS")
    return path


def make_token(state_dir: Path) -> dict[str, str]:
    """Make a SoftHSM token under ``state_dir``; return the environment that names it."""
    (state_dir / "tokens").mkdir(parents=True)
    conf = state_dir / "softhsm.conf"
    conf.write_text((ROOT / "softhsm.conf").read_text().replace("@STATE_DIR@", str(state_dir)))
    (state_dir / "pin").write_text(PIN)
    command = ["softhsm2-util", "--init-token", "--free", "--label", LABEL]
    environment = {**os.environ, "SOFTHSM2_CONF": str(conf)}
    subprocess.run(
        [*command, "--pin", PIN, "--so-pin", PIN], env=environment, check=True, capture_output=True
    )
    module = subprocess.run(
        [ROOT / "scripts" / "find-softhsm"], check=True, capture_output=True, text=True
    )
    return {
        "SOFTHSM2_CONF": str(conf),
        "JOSE_HSM_PKCS11_MODULE": module.stdout.strip(),
        "JOSE_HSM_TOKEN_LABEL": LABEL,
        "JOSE_HSM_PIN_FILE": str(state_dir / "pin"),
        "JOSE_HSM_STATE_DIR": str(state_dir),
    }


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of the token and registry of this test session."""
    environment = make_token(tmp_path_factory.mktemp("state"))
    migrate(Config.from_env(environment).registry_url)
    return environment


@pytest.fixture(scope="session")
def config(environment: Mapping[str, str]) -> Config:
    """The settings of this process; the token library reads its own from the environment."""
    os.environ["SOFTHSM2_CONF"] = environment["SOFTHSM2_CONF"]
    return Config.from_env(environment)


@pytest.fixture(scope="session")
def application(config: Config) -> Any:
    """The service in this process. A process has one PKCS#11 library, so there is one of it."""
    application = create_app(config)
    application.extensions["hsm"].offers()  # waits for the token
    return application


@pytest.fixture(scope="session")
def local(application: Any) -> Api:
    """The service in this process, called without a network: for what needs many calls."""
    client = application.test_client()

    def send(method: str, path: str, **arguments: Any) -> Any:
        return client.open(path, method=method, **arguments)

    return Api(send)


@contextmanager
def running(environment: Mapping[str, str], *, workers: int = 2) -> Iterator[str]:
    """Serve with gunicorn on a free port; give the base URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "deploy/gunicorn.conf.py", "app:create_app()"],
        cwd=ROOT,
        env={
            **os.environ,
            **environment,
            "JOSE_HSM_BIND": f"127.0.0.1:{port}",
            "WEB_CONCURRENCY": str(workers),
        },
        stdout=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_serving(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=_READY_SECONDS)


def wait_until_serving(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Return when every worker has had time to open the token."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            requests.get(url, timeout=5)
        except requests.ConnectionError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the server did not start")


@pytest.fixture(scope="session")
def server(environment: Mapping[str, str]) -> Iterator[str]:
    """The base URL of a live gunicorn with two workers."""
    with running(environment) as url:
        yield url


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[str]]:
    """Serve with settings of one's own: ``with serve(environment | {...}) as url``."""
    return running


@pytest.fixture(scope="session")
def live(server: str) -> Api:
    """The live service."""
    return Api.over_http(server)
