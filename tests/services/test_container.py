"""What the image of a container is made of, and its first start; no container engine is asked."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.throwaway import ROOT, reserved_address
from tests.services.test_serving import SOURCES, copy_sources
from tests.shared.api import Api
from tests.shared.waiting import COMMAND, START, until

CONTAINER = ROOT / "deploy" / "container"
INSTRUCTIONS = (CONTAINER / "Containerfile").read_text("utf-8").replace("\\\n", "")
BUILD, IMAGE = (f"FROM {stage}" for stage in INSTRUCTIONS.split("\nFROM ")[-2:])
TARGET, STATE = "/opt/jose-hsm", "/var/lib/jose-hsm"
SECRET = re.compile(r"^jh_\S+$", re.MULTILINE)
ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def copied(stage: str) -> set[str]:
    """Return what a stage takes from where it is built."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", stage, re.MULTILINE)
    return {source for line in lines for source in line.split()}


def test_the_image_is_built_of_all_that_a_wheel_needs_and_of_its_steps():
    assert copied(BUILD) == {*SOURCES, "requirements.lock", "deploy/container/build"}
    assert copied(IMAGE) == {"deploy/container/prepare", "deploy/container/start"}
    for name in ("build", "prepare", "start"):
        assert os.access(CONTAINER / name, os.X_OK)
        subprocess.run(["sh", "-n", CONTAINER / name], check=True)


def test_who_runs_in_it_is_not_root_and_finds_no_pin_in_the_environment():
    assert re.findall(r"^USER (.+)$", IMAGE, re.MULTILINE) == ["10001"]
    assert "PIN" not in INSTRUCTIONS
    assert f"VOLUME {STATE}" in IMAGE
    assert "JOSE_HSM_AUTH=token" in IMAGE


def said(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Return what a process has printed that has not ended."""
    assert process.poll() is None, log.read_text()
    return log.read_text()


@contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[tuple[str, str]]:
    """Start as the container does; give the URL of the service, and what was printed."""
    with reserved_address() as place, log.open("w") as output:
        bind = {"JOSE_HSM_BIND": place, "JOSE_HSM_AUTH": "token", "WEB_CONCURRENCY": "1"}
        with subprocess.Popen(
            command, env={**environment, **bind}, stdout=output, stderr=subprocess.STDOUT
        ) as process:
            try:
                until(lambda: f"http://{place}" in said(process, log), within=START)
                yield f"http://{place}", log.read_text()
            finally:
                process.send_signal(signal.SIGTERM)
                assert process.wait(COMMAND.seconds) == 0


def assert_only_the_first_start_says_a_token(
    command: Sequence[str], environment: Mapping[str, str], log: Path, starts: int
) -> None:
    with started(command, environment, log) as (url, printed):
        (bearer,) = SECRET.findall(printed)
        assert Api.over_http(url).post("/keys", {"kty": "oct", "alg": "HS256"}).status == 401
        api = Api.over_http(url, bearer=bearer)
        body = {"kid": api.create(kty="oct", alg="HS256")["kid"], "alg": "HS256", "data": ""}
        mac = api.ok("/mac", body)
    for _ in range(1, starts):
        with started(command, environment, log) as (url, printed):
            assert not SECRET.search(printed)
            assert Api.over_http(url, bearer=bearer).ok("/mac", body) == mac


@pytest.mark.usefixtures("softhsm")
@pytest.mark.parametrize("starts", [1, pytest.param(3, marks=pytest.mark.long)])
def test_the_first_start_makes_a_token_and_says_an_api_token(starts, tmp_path):
    state = tmp_path / "state"
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": programs, "JOSE_HSM_STATE_DIR": str(state)}
    start = [str(CONTAINER / "start")]
    assert_only_the_first_start_says_a_token(start, environment, tmp_path / "log", starts)
    files = [path for path in state.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o077 for path in files} == {0}


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    """A fresh Debian 12 that trusts whom this machine trusts."""
    if os.geteuid() or not shutil.which("debootstrap"):
        pytest.skip("the steps of the image need root and debootstrap")
    directory = tmp_path / "debian"
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", directory], check=True)
    trusted = directory / "usr/local/share/ca-certificates/host.crt"
    trusted.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", trusted)
    for name in ("dev/shm", "tmp"):  # as container engines have them
        (directory / name).chmod(0o1777)
    return directory


@pytest.mark.long
@pytest.mark.usefixtures("softhsm")
def test_the_steps_of_the_image_make_a_debian_that_serves(debian, tmp_path):
    source = debian / "source"
    copy_sources((*SOURCES, "requirements.lock"), source)
    for name in ("build", "prepare", "start"):
        shutil.copy2(CONTAINER / name, debian)
    environment = {"PATH": ROOT_PATH}
    for step in (["/build", "/source", TARGET], ["/prepare"]):
        subprocess.run(["chroot", debian, *step], env=environment, check=True)
    shutil.rmtree(source)
    environment = {"PATH": f"{TARGET}/bin:{ROOT_PATH}", "JOSE_HSM_STATE_DIR": STATE}
    start = ["chroot", "--userspec=jose-hsm:jose-hsm", str(debian), "/start"]
    assert_only_the_first_start_says_a_token(start, environment, tmp_path / "log", 2)
