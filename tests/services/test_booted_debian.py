"""docs/operating.md, typed word by word on a Debian 12 that systemd has booted."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.throwaway import ROOT
from tests.shared.documents import DOCUMENTS
from tests.shared.waiting import PATIENCE_SECONDS

NAME = "jose-hsm.example.org"
PACKAGES = (
    *("ca-certificates", "curl", "dbus", "git", "jq", "nginx", "opensc", "openssl"),
    *("postgresql", "python3", "python3-venv", "softhsm2", "systemd"),
)
NSPAWN = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--directory")

UNIT = """
[Unit]
After=nginx.service postgresql.service
[Service]
Type=oneshot
Environment=HOME=/root
ExecStart=/bin/bash /root/typed
StandardOutput=file:/root/log
StandardError=inherit
ExecStopPost=/bin/systemctl poweroff --no-block
[Install]
WantedBy=multi-user.target
"""

BEFORE = f"""
set -eux
install -d /etc/ssl/jose-hsm
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={NAME} \\
    -addext subjectAltName=DNS:{NAME} \\
    -keyout /etc/ssl/jose-hsm/privkey.pem -out /etc/ssl/jose-hsm/fullchain.pem
cat /etc/ssl/jose-hsm/fullchain.pem >>/etc/ssl/certs/ca-certificates.crt
echo 127.0.0.1 {NAME} >>/etc/hosts
printf '#!/bin/sh\\ntrue\\n' >/usr/local/bin/editor # the name and the certificate are there
chmod 755 /usr/local/bin/editor
systemctl enable typed.service
git config --global --add safe.directory '*'
cd /opt/jose-hsm
scripts/setup requirements.lock
git clone --quiet --bare . /srv/jose-hsm.git
git remote set-url origin /srv/jose-hsm.git
"""
"""What a host has before the page begins; only this needs a network."""

USE = f"""
TOKEN=$(jose-hsm token create --principal trial --expires 1d)
ask() {{ curl -sS -H "Authorization: Bearer $TOKEN" "$@"; }}
signs() {{
    until ask --fail "https://{NAME}/health/ready"; do sleep 0.1; done
    ask --fail "https://{NAME}/v1/crypto/sign" --json "$SIGN"
}}
EC='{{"kty":"EC","crv":"P-256","alg":"ES256"}}'
KID=$(ask "https://{NAME}/v1/crypto/keys" --json "$EC" | jq -er .kid)
SIGN="{{\\"kid\\":\\"$KID\\",\\"alg\\":\\"ES256\\",\\"data\\":\\"\\"}}"
signs
"""
UNDER_LOAD = """
systemctl reload jose-hsm
signs
(for _ in $(seq 60); do signs; done) &
systemctl restart jose-hsm
wait $!
"""
AFTER = """
systemd-analyze verify --man=no /etc/systemd/system/jose-hsm.* 2>&1 | tee /root/verified
test ! -s /root/verified
systemd-analyze security --threshold=20 jose-hsm.service
test -z "$(systemctl list-units --failed --no-legend)"
echo all is well
"""


def typed(heading: str, number: int = 0) -> str:
    """What the page has root type in a section."""
    section = DOCUMENTS["docs/operating.md"].text.partition(f"\n{heading}\n")[2]
    section = re.split(r"\n##+ ", section)[0]
    return re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[number]


def script() -> str:
    """All that is typed, one after the other; the first that fails ends it."""
    account = "".join(typed("## PostgreSQL").splitlines(keepends=True)[:2])
    return "\n".join(
        [
            "set -eux; cd /opt/jose-hsm",
            typed("### Account and settings"),
            typed("### The token"),
            typed("### The token", 1),
            typed("### nginx and the units"),
            typed("### nginx and the units", 1),
            USE,
            UNDER_LOAD,
            typed("## Changing the PIN"),
            "signs",
            typed("## Upgrading"),
            "signs",
            account,
            typed("## PostgreSQL", 1),
            "signs",
            typed("## Logs"),
            AFTER,
        ]
    )


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    """A fresh Debian 12 with its packages, and the code where the page has it."""
    if os.geteuid() or not (shutil.which("debootstrap") and shutil.which("systemd-nspawn")):
        pytest.skip("it needs root, debootstrap and systemd-nspawn (systemd-container)")
    directory = tmp_path / "debian"
    make = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    subprocess.run([*make, "bookworm", directory], check=True)
    for name in ("etc/ssl/certs/ca-certificates.crt", "etc/resolv.conf"):
        shutil.copy(Path("/", name), directory / name)
    subprocess.run(["git", "clone", "--quiet", ROOT, directory / "opt/jose-hsm"], check=True)
    (directory / "etc/systemd/system/typed.service").write_text(UNIT)
    (directory / "root/typed").write_text(script())
    (directory / "root/before").write_text(BEFORE)
    prepare = [*NSPAWN, str(directory), "--resolv-conf=off", "--setenv=HOME=/root"]
    subprocess.run([*prepare, "bash", "/root/before"], check=True, stdin=subprocess.DEVNULL)
    return directory


@pytest.mark.long
@pytest.mark.usefixtures("softhsm")
def test_the_page_leads_to_a_service_that_lives_through_what_it_says(debian):
    boot = [
        *NSPAWN,
        str(debian),
        "--boot",
        "--private-network",
        "--resolv-conf=off",
        "--console=pipe",
    ]
    subprocess.run(boot, stdin=subprocess.DEVNULL, check=False, timeout=2 * PATIENCE_SECONDS)
    log = (debian / "root/log").read_text()
    assert log.endswith("all is well\n"), log[-5000:]


def test_what_is_typed_leaves_the_umask_of_the_shell_as_it_was():
    """Else the next `git pull` there writes code that the account of the service cannot read."""
    assert not re.search(r"^\s*umask ", script(), re.MULTILINE)


def test_what_is_typed_is_what_the_page_says():
    """Else a heading that is called otherwise would leave a step out."""
    lines = script()
    assert "softhsm2-util --init-token" in lines
    assert "nginx -t && systemctl reload nginx" in lines
    assert "--change-pin" in lines
    assert "git pull" in lines
    assert "createuser jose-hsm" in lines
    assert "jose-hsm restore" in lines
    assert "journalctl" in lines
