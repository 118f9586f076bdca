"""The PIN is changed under a service, by the commands of docs/operating.md."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import requests

from scripts.throwaway import LABEL, make_token
from scripts.workers import workers_of
from tests.http.test_http import api_of
from tests.shared.documents import DOCUMENTS
from tests.shared.forks import server
from tests.shared.waiting import STATE, until
from tests.shared.workers import kill_a_worker

MAC = {"kty": "oct", "alg": "HS256"}


def commands(settings: Mapping[str, str]) -> list[str]:
    """What the page has root type, for the files and the token of ``settings``; not the restart."""
    (block,) = DOCUMENTS["docs/operating.md"].sections["Changing the PIN"]
    code = block.code.replace("\\\n", " ").replace("runuser -u jose-hsm -- ", "")
    code = code.replace("/etc/jose-hsm", settings["JOSE_HSM_STATE_DIR"])
    code = code.replace("--token-label jose-hsm", f"--token-label {LABEL}")
    code = re.sub(r"--module \S+", f"--module {settings['JOSE_HSM_PKCS11_MODULE']}", code)
    *typed, restart = code.splitlines()
    assert restart == "systemctl restart jose-hsm"
    return typed


def types(settings: Mapping[str, str], lines: list[str]) -> None:
    done = subprocess.run(
        ["bash", "-euc", "\n".join(lines)],
        env=os.environ | {"SOFTHSM2_CONF": settings["SOFTHSM2_CONF"]},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done


def replaced(master: int) -> None:
    """End the one worker of ``master``, and wait until there is another."""
    killed = kill_a_worker(master)
    until(lambda: set(workers_of(master)) - {killed})


def state_of(url: str) -> str:
    """What ``/health/ready`` says: ready, or the word of its reason."""
    said = requests.get(f"{url}/health/ready", timeout=STATE.seconds).json()
    return said.get("state") or said["description"].split(": ")[1]


@pytest.mark.skipif(shutil.which("pkcs11-tool") is None, reason="OpenSC is not installed")
def test_requests_go_on_and_new_workers_are_refused_until_the_file_has_the_pin(tmp_path):
    settings = make_token(tmp_path / "state")
    latch = Path(settings["JOSE_HSM_STATE_DIR"]) / "pin.latch"
    *on_token, in_file = commands(settings)
    with server(settings, workers=1) as running:
        api = api_of(running.url)
        kid = api.create(**MAC)["kid"]
        request = {"kid": kid, "alg": "HS256", "data": ""}
        mac = api.ok("/mac", request)["mac"]

        types(settings, on_token)
        assert api.ok("/mac", request)["mac"] == mac
        assert not latch.exists()

        replaced(running.process.pid)
        until(lambda: state_of(running.url) == "pin")
        assert api.post("/mac", request).refusal == (503, "unavailable")
        assert latch.exists()
        replaced(running.process.pid)
        until(lambda: state_of(running.url) == "pin")

        types(settings, [in_file])
        until(lambda: state_of(running.url) == "ready")
        assert api.ok("/mac", request)["mac"] == mac
        assert not latch.exists()
