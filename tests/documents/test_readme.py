"""The README keeps its promises: every flow of the reference, and a service from ``make run``."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.throwaway import ROOT, reserved_address
from tests.shared.api import Api
from tests.shared.command import jose_hsm, printed_url
from tests.shared.documents import DOCUMENTS, typed
from tests.shared.waiting import COMMAND, STOP, until

REFERENCE_FLOWS = {
    "dir": '"alg\\":\\"dir\\"',
    "RSA-OAEP": "RSA-OAEP-256",
    "sign and verify": "post verify",
    "MAC": "post mac",
    "unwrap": "post keys/unwrap",
    "import of a secret key": '"k":',
    "import of a private key": '"d":',
    "destroy": "-X DELETE",
    "compact": "compact",
    "a public key brought along": "--argjson jwk",
    "batch": "post batch",
}


@pytest.mark.parametrize("name", REFERENCE_FLOWS)
def test_the_commands_cover_every_flow_of_the_reference(name):
    assert REFERENCE_FLOWS[name] in DOCUMENTS["README.md"].session


@pytest.mark.parametrize("block", DOCUMENTS["README.md"].sections["The flows"][1:])
def test_a_flow_needs_nothing_of_another(block):
    used = set(re.findall(r"\$\{?([A-Z]+)", block.code))
    made = set(re.findall(r"^([A-Z]+)=", block.code, re.MULTILINE))
    assert used <= {"API"} | made


SHOWN = DOCUMENTS["docs/quick-start.md"].sections["1. Start the service"][1].code.splitlines()[0]
"""The first line that the quick start shows of ``make run``."""


def started(state_dir: str, port: str, checkout: Path = ROOT) -> "subprocess.Popen[str]":
    """Start ``make run``."""
    # GNU make passes its options on in the environment; those of a surrounding make are not ours.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    return subprocess.Popen(
        ["make", "run", f"PORT={port}", f"STATE_DIR={state_dir}"],
        cwd=checkout,
        env=environment | {"WEB_CONCURRENCY": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@contextmanager
def make_run(
    state_dir: str, stop: Callable[["subprocess.Popen[str]"], None], checkout: Path = ROOT
) -> Iterator[str]:
    """Run ``make run``; give the URL that it prints; see that ``stop`` leaves nothing behind."""
    with reserved_address() as place:
        process = started(state_dir, place.rpartition(":")[2], checkout)
        try:
            yield printed_url(process)
        finally:
            stop(process)
            rest, _ = process.communicate(timeout=COMMAND.seconds)
    assert "Traceback" not in rest
    until(lambda: is_over(process.pid), within=STOP)


def is_over(group: int) -> bool:
    """Tell whether nothing is left of a group of processes."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_make_run_serves_and_finds_its_keys_again(tmp_path, monkeypatch):
    monkeypatch.delenv("SOFTHSM2_CONF", raising=False)
    state = str(tmp_path / "state")
    with make_run(state, lambda make: os.killpg(make.pid, signal.SIGINT)) as url:
        kid = Api.over_http(url).create(kty="oct", alg="HS256")["kid"]
        second = started(state, url.rpartition(":")[2])
        said, _ = second.communicate(timeout=COMMAND.seconds)
        assert second.returncode
        assert re.search(r"cannot listen on .*make run PORT=", said)
        assert SHOWN.replace("/home/you/jose-hsm/var", state) in said.splitlines()
    with make_run(state, lambda make: make.terminate()) as url:
        assert Api.over_http(url).ok("/mac", {"kid": kid, "alg": "HS256", "data": ""})["mac"]
        beside = {name: "" for name in os.environ if name.startswith("JOSE_HSM_")}
        done = jose_hsm(beside | {"JOSE_HSM_STATE_DIR": state}, "reconcile")
        assert (done.returncode, done.stdout.count(": 0")) == (0, 3), done


@pytest.mark.long
def test_a_new_clone_leads_to_a_verified_jwt(tmp_path):
    checkout = tmp_path / "jose-hsm"
    subprocess.run(["git", "clone", "--quiet", ROOT, checkout], check=True)
    with make_run("var", lambda make: os.killpg(make.pid, signal.SIGINT), checkout) as url:
        done = typed(DOCUMENTS["docs/quick-start.md"], url, {}, tmp_path)
    assert done.returncode == 0, done
    assert "Verified OK" in done.stdout
