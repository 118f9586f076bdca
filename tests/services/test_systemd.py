"""The units are valid, and restarting the service behind its socket refuses nobody."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from app.operator.serving import CONFIGURATION
from scripts.throwaway import ROOT
from tests.faults.test_processes import (
    Key,
    answers,
    broken,
    load,
    refused,
    wait_for_answers,
)
from tests.http.test_http import api_of
from tests.shared.forks import server
from tests.shared.waiting import COMMAND, STOP

UNITS = ROOT / "deploy" / "systemd"
ANALYZE = shutil.which("systemd-analyze")
analyzed = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
MOST_EXPOSED = 2.0


def analyze(*arguments: str) -> str:
    done = subprocess.run(
        [str(ANALYZE), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=COMMAND.seconds,
    )
    if "nknown" in done.stderr.partition("\n")[0] and "--offline" in arguments:
        pytest.skip("this systemd-analyze cannot look at a file")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@analyzed
def test_the_units_are_valid(tmp_path: Path) -> None:
    """As installed: with programs and account that exist."""
    places = {"/opt/jose-hsm/.venv/bin": Path(sys.executable).parent, "/opt/jose-hsm": ROOT}
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("www-data", "root")
        for number, place in enumerate(places):
            text = text.replace(place, f"{tmp_path}/{number}")
        (tmp_path / unit.name).write_text(text.replace("=jose-hsm\n", "=root\n"))
    for number, path in enumerate(places.values()):  # which may have a space in it
        (tmp_path / str(number)).symlink_to(path)
    paths = [str(tmp_path / unit.name) for unit in UNITS.iterdir()]
    assert analyze("verify", "--man=no", *paths) == ""


@analyzed
def test_the_service_is_little_exposed() -> None:
    printed = analyze("security", "--offline=true", str(UNITS / "jose-hsm.service"))
    (level,) = [line for line in printed.splitlines() if "Overall exposure level" in line]
    assert float(level.rpartition(": ")[2].split()[0]) <= MOST_EXPOSED


def test_a_socket_that_the_service_makes_is_open_to_no_more_than_that_of_systemd(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    (line,) = [
        line
        for line in (UNITS / "jose-hsm.socket").read_text().splitlines()
        if line.startswith("SocketMode=")
    ]
    path = tmp_path / "http.sock"
    with server(environment, workers=1, bind=f"unix:{path}"):
        assert stat.S_IMODE(path.stat().st_mode) == int(line.partition("=")[2], 8)


def test_what_workers_lower_of_their_own_is_permitted() -> None:
    """Limits and priorities are @resources: without setpriority no RSA pair would be made."""
    lines = (UNITS / "jose-hsm.service").read_text().splitlines()
    filters = [line for line in lines if line.startswith("SystemCallFilter=")]
    assert filters[-1] == "SystemCallFilter=setrlimit prlimit64 setpriority"
    assert filters[:-1] == [
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged @resources",
    ]


def test_the_pin_is_a_credential_and_there_are_no_core_dumps() -> None:
    lines = (UNITS / "jose-hsm.service").read_text().splitlines()
    assert "LoadCredential=pin:/etc/jose-hsm/pin" in lines
    assert "Environment=JOSE_HSM_PIN_FILE=%d/pin" in lines
    assert "LimitCORE=0" in lines
    assert not any("JOSE_HSM_PIN=" in line for line in lines)


def test_systemd_waits_longer_for_the_end_than_gunicorn_for_its_workers() -> None:
    unit = (UNITS / "jose-hsm.service").read_text()
    settings = CONFIGURATION.read_text()
    stop = int(unit.partition("TimeoutStopSec=")[2].split()[0])
    graceful = int(settings.partition("graceful_timeout = ")[2].split()[0])
    assert stop > graceful + 5


def test_the_documents_install_everything_there_is() -> None:
    page = (ROOT / "docs" / "operating.md").read_text()
    for part in [*UNITS.iterdir(), *(ROOT / "deploy" / "nginx").iterdir()]:
        assert f" {part.relative_to(ROOT)} " in page


@contextmanager
def activated(
    settings: Mapping[str, str], listener: socket.socket
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the service on a socket that it is handed, as systemd does."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("JOSE_HSM_")},
        **settings,
        "LISTEN_FDS": "1",
        "WEB_CONCURRENCY": "2",
        "COMMAND": str(Path(sys.executable).with_name("jose-hsm")),
    }
    command = 'exec 3<&"$0"; LISTEN_PID=$$ exec "$COMMAND" serve'
    with subprocess.Popen(
        ["bash", "-c", command, str(listener.fileno())],
        cwd=ROOT,
        env=environment,
        pass_fds=[listener.fileno()],
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=STOP.seconds)


@pytest.mark.long
def test_a_restart_behind_the_socket_refuses_and_cuts_off_nobody(environment) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, ExitStack() as service:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        service.enter_context(activated(environment, listener))
        key = Key(api_of(url))
        with load(url, key, clients=4) as clients:
            for _ in range(5):
                service.close()
                service.enter_context(activated(environment, listener))
                wait_for_answers(clients)
    assert broken(clients) == []
    assert refused(clients) == 0
    assert set(answers(clients)) == {200}
