"""The deployment of docs/operating.md, followed literally in a directory of its own."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from scripts.throwaway import ROOT
from tests.shared.documents import DOCUMENTS

UNIT = (ROOT / "deploy" / "systemd" / "jose-hsm.service").read_text("utf-8")
WRAPPER = (ROOT / "deploy" / "jose-hsm").read_text("utf-8")
HEADINGS = ("### Account and settings\n", "### The token\n")


def commands() -> str:
    """What the page has root type, up to the first examination."""
    text = DOCUMENTS["docs/operating.md"].text
    parts = [text.partition(heading)[2].partition("\n### ")[0] for heading in HEADINGS]
    return "\n".join(
        re.findall(r"^```console\n(.*?)^```", "".join(parts), re.MULTILINE | re.DOTALL)
    )


class Host(NamedTuple):
    """A directory with what root has on a host, and the account of the service."""

    root: Path
    account: str
    examined: list[str]
    """What the doctor has printed at the end."""

    def moved(self, text: str) -> str:
        """Return ``text`` with the paths and the account of the page as they are here."""
        for directory in ("/etc/jose-hsm", "/var/lib/jose-hsm", "/usr/local/sbin", "/run"):
            text = text.replace(directory, f"{self.root}{directory}")
        text = text.replace("/opt/jose-hsm/.venv/bin", str(Path(sys.executable).parent))
        text = re.sub(r"(-[uo]|user=) ?jose-hsm\b", lambda found: f"{found[1]}{self.account}", text)
        return re.sub(r"^useradd .*$", "", text, flags=re.MULTILINE)

    def types(self, script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run what root types, with the installed command in the path."""
        return subprocess.run(
            ["bash", "-euc", script],
            cwd=self.root,
            env={
                **{name: text for name, text in os.environ.items() if "JOSE_HSM" not in name},
                "PATH": f"{self.root}/usr/local/sbin:{os.environ['PATH']}:/usr/sbin:/sbin",
                "SOFTHSM2_CONF": str(self.root / "softhsm.conf"),
                **environment,
            },
            check=False,
            capture_output=True,
            text=True,
        )

    @property
    def etc(self) -> Path:
        return self.root / "etc" / "jose-hsm"

    @property
    def state(self) -> Path:
        return self.root / "var" / "lib" / "jose-hsm"


def account() -> str:
    """``nobody``, or root where nobody else may run this Python."""
    if os.geteuid():
        pytest.skip("only root may become another account")
    runuser = shutil.which("runuser", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if not runuser:
        pytest.skip("runuser is not installed")
    command = [runuser, "-u", "nobody", "--", sys.executable, "-c", "import app"]
    done = subprocess.run(command, cwd="/", check=False, capture_output=True)
    return "root" if done.returncode else "nobody"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host on which everything that the page says has been typed."""
    with tempfile.TemporaryDirectory(prefix="jose-hsm-host-") as directory:
        here = Host(Path(directory), account(), [])
        here.root.chmod(0o755)
        for name in ("deploy", "run", "usr/local/sbin", "var/lib"):
            (here.root / name).mkdir(parents=True)
        (here.root / "deploy" / "jose-hsm").write_text(here.moved(WRAPPER))
        tokens = here.root / "tokens"
        tokens.mkdir()
        shutil.chown(tokens, here.account)
        conf = (ROOT / "softhsm.conf").read_text().replace("@STATE_DIR@", str(here.root))
        (here.root / "softhsm.conf").write_text(conf)
        done = here.types(here.moved(commands()))
        assert done.returncode == 0, done
        here.examined.extend(done.stdout.splitlines())
        yield here


def owners(directory: Path) -> set[str]:
    return {path.owner() for path in directory.iterdir()}


def test_the_page_leads_to_an_installation_in_which_the_doctor_finds_no_failure(host):
    counts = host.examined[-1]
    assert " ok" in counts
    assert "failed" not in counts, host.examined


def test_the_files_are_those_of_the_account_and_the_secrets_those_of_root(host):
    assert owners(host.state) == {host.account}
    assert owners(host.root / "tokens") == {host.account}
    for name in ("pin", "so-pin", "settings"):
        status = (host.etc / name).stat()
        assert (status.st_uid, status.st_mode & 0o777) == (0, 0o600), name


def test_the_operators_command_leaves_no_copy_of_the_pin(host):
    assert host.types("jose-hsm keys list").returncode == 0
    assert list((host.root / "run").iterdir()) == []


def test_the_operators_command_has_the_status_of_what_it_runs(host):
    assert host.types("jose-hsm keys list --state x").returncode == 2
    assert host.types("jose-hsm audit verify --head 00").returncode == 1


def test_a_setting_of_the_shell_is_none_of_the_service(host):
    assert host.types("jose-hsm keys list", JOSE_HSM_PIN="0000", JOSE_HSM_NONE="x").returncode == 0


def test_an_unknown_setting_in_the_file_ends_the_command_and_leaves_no_copy(host):
    settings = host.etc / "settings"
    before = settings.read_text()
    try:
        settings.write_text(before + "JOSE_HSM_SESSION=4\n")
        done = host.types("jose-hsm keys list")
    finally:
        settings.write_text(before)
    assert done.returncode == 2
    assert done.stderr.endswith(
        "unknown setting JOSE_HSM_SESSION; did you mean JOSE_HSM_SESSIONS?\n"
    )
    assert list((host.root / "run").iterdir()) == []


def test_who_is_not_root_is_told_so(host):
    done = host.types("runuser -u nobody -- jose-hsm keys list")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("jose-hsm: only root")


def test_the_operators_command_has_what_the_unit_has():
    """Else it would look after another registry than that of the service."""
    assert "User=jose-hsm\n" in UNIT
    assert "user=jose-hsm\n" in WRAPPER
    assert "Environment=JOSE_HSM_STATE_DIR=%S/jose-hsm\n" in UNIT
    assert "JOSE_HSM_STATE_DIR=/var/lib/jose-hsm\n" in WRAPPER
    assert "EnvironmentFile=/etc/jose-hsm/settings\n" in UNIT
    assert "LoadCredential=pin:/etc/jose-hsm/pin\n" in UNIT
    assert ' /etc/jose-hsm/settings /etc/jose-hsm/pin "$copies"\n' in WRAPPER
    program = "/opt/jose-hsm/.venv/bin/jose-hsm "
    assert f"{program}migrate\n" in UNIT
    assert f"{program}--settings" in WRAPPER


def test_nothing_on_the_page_installs_a_copy_of_the_code():
    """A copy in .venv stays what it is when the checkout is upgraded."""
    assert "pip install" not in DOCUMENTS["docs/operating.md"].text
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import app, hsm; print([app.__file__, hsm.__file__])"],
        cwd="/",
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{[f'{ROOT}/app/__init__.py', f'{ROOT}/hsm/__init__.py']}\n"


@pytest.mark.long
def test_after_an_upgrade_the_command_runs_the_code_of_the_checkout(tmp_path):
    """With the driver of PostgreSQL, which once came with a copy of the code."""
    checkout = tmp_path / "jose-hsm"
    subprocess.run(["git", "clone", "--quiet", ROOT, checkout], check=True)

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
        return done.stdout

    run("scripts/setup", "requirements.lock")
    run(".venv/bin/python", "-c", "import app.registry.databases.postgresql")
    listed = checkout / "app" / "operator" / "cli" / "__init__.py"
    listed.write_text(listed.read_text().replace("Create or update the schema", "Upgraded"))
    run("scripts/setup", "requirements.lock")
    assert "Upgraded of the registry." in run(".venv/bin/jose-hsm", "--help")
