"""The command serves: from a wheel, from any directory, on a token that it makes itself."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests

from app.config import Config
from app.operator.serving import DevelopmentToken
from scripts.throwaway import ROOT, make_registry, reserved_address
from tests.shared.api import Api
from tests.shared.command import jose_hsm, printed_url
from tests.shared.waiting import ANSWER, COMMAND

SOURCES = (
    "app",
    "hsm",
    "docs/openapi.json",
    "docs/openapi-strict.json",
    "docs/jose-hsm.1",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "softhsm.conf",
)
PIN = "0123456789"
COMMAND_LINE = "import sys; from app.operator.cli import main; sys.exit(main())"


def copy_sources(names: Iterable[str], target: Path) -> None:
    """Copy files and folders of the project to where they are in it, below ``target``."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, target / name)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel of the project puts into site-packages."""
    sources, wheels = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheels")
    copy_sources(SOURCES, sources)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(wheels)!r})"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=sources, check=False, capture_output=True
    )
    assert done.returncode == 0, done
    (wheel,) = wheels.iterdir()
    directory = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(directory)
    return directory


def test_a_wheel_has_every_file_of_the_packages(installed):
    command = ["git", "ls-files", "--", "app", "hsm"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert [name for name in listed.splitlines() if not (installed / name).is_file()] == []


def test_a_wheel_has_the_manual_page(installed):
    (page,) = installed.glob("*.data/data/share/man/man1/jose-hsm.1")
    assert page.read_bytes() == (ROOT / "docs" / "jose-hsm.1").read_bytes()


@contextmanager
def running(installed: Path, elsewhere: Path, *arguments: str) -> Iterator[str]:
    """Run the command as it is installed, in the directory ``elsewhere``; give what it serves."""
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "app.py").write_text("raise SystemExit('this is no module of the service')")
    own = {name: text for name, text in os.environ.items() if not name.startswith("JOSE_HSM_")}
    with subprocess.Popen(
        [sys.executable, "-P", "-c", COMMAND_LINE, *arguments],
        cwd=elsewhere,
        env=own | {"PYTHONPATH": str(installed), "WEB_CONCURRENCY": "1", "JOSE_HSM_PIN": PIN},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield printed_url(process)
        finally:
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=COMMAND.seconds)
    assert "Traceback" not in rest


@pytest.mark.usefixtures("softhsm")
def test_an_installed_wheel_serves_from_any_directory(installed, tmp_path):
    with reserved_address() as place:
        port = place.rpartition(":")[2]
        with running(installed, tmp_path / "here", "dev", "--port", port) as url:
            api = Api.over_http(url)
            body = {"kid": api.create(kty="oct", alg="HS256")["kid"], "alg": "HS256", "data": ""}
            mac = api.ok("/mac", body)
            for name in ("openapi.json", "openapi-strict.json"):
                assert requests.get(f"{url}/{name}", timeout=ANSWER.seconds).status_code == 200
        settings = tmp_path / "here" / "var" / "settings"
        assert PIN not in settings.read_text()
        there = tmp_path / "there"
        with running(installed, there, "--settings", str(settings), "serve") as url:
            assert Api.over_http(url).ok("/mac", body) == mac


def test_what_has_no_schema_is_not_served(environment, tmp_path):
    settings = {**environment, "JOSE_HSM_STATE_DIR": str(tmp_path)}
    said = "there is no registry yet: run `jose-hsm migrate`\n"
    done = jose_hsm(settings, "serve")
    assert (done.returncode, done.stderr) == (2, f"jose-hsm: {said}")
    checked = jose_hsm(settings, "config", "check")
    assert (checked.returncode, checked.stdout) == (1, said)


def test_an_older_schema_is_not_served(environment, tmp_path):
    url = make_registry(tmp_path / "registry.db")
    with closing(sqlite3.connect(tmp_path / "registry.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    done = jose_hsm({**environment, "JOSE_HSM_DATABASE_URL": url}, "serve")
    assert done.returncode == 2
    assert done.stderr.startswith("jose-hsm: the registry has schema 0001, and this version needs")
    assert done.stderr.endswith(": run `jose-hsm migrate`\n")


@pytest.mark.parametrize("workers", ["0", "-1", "many", "1.5"])
def test_what_is_no_number_of_workers_is_named(environment, workers):
    done = jose_hsm({**environment, "WEB_CONCURRENCY": workers}, "serve")
    assert done.returncode == 2
    message = "jose-hsm: WEB_CONCURRENCY must be a whole number above 0, 1000000000 at most\n"
    assert done.stderr == message


def test_without_workers_nothing_is_served(environment):
    """An empty WEB_CONCURRENCY is as none, and callers would wait for ever."""
    given = {"WEB_CONCURRENCY": "", "GUNICORN_CMD_ARGS": "--workers 0"}
    done = jose_hsm({**environment, **given}, "serve")
    assert done.returncode == 1
    assert done.stderr.startswith("jose-hsm: nobody is served without workers")


@pytest.mark.parametrize("place", ["file", "file/socket", "none/socket"])
def test_a_path_where_no_socket_can_be_is_named(environment, tmp_path, place):
    (tmp_path / "file").touch()
    done = jose_hsm({**environment, "JOSE_HSM_BIND": f"unix:{tmp_path / place}"}, "serve")
    assert done.returncode == 1
    assert done.stderr.startswith(f"jose-hsm: cannot listen on {tmp_path / place}: ")
    assert done.stderr.endswith("; choose another JOSE_HSM_BIND\n")


def test_files_of_tls_that_cannot_be_used_are_named(environment, tmp_path):
    pair = {name: tmp_path / name for name in ("certificate", "key")}
    request = ["req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=x"]
    files = ["-out", pair["certificate"], "-keyout", pair["key"]]
    subprocess.run(["openssl", *request, *files], check=True, capture_output=True)
    good = {f"JOSE_HSM_TLS_{name.upper()}": str(path) for name, path in pair.items()}
    locked = tmp_path / "locked"
    locking = ["pkey", "-in", pair["key"], "-aes256", "-passout", "pass:word", "-out", locked]
    subprocess.run(["openssl", *locking], check=True, capture_output=True)
    for name, path, said in (
        ("CERTIFICATE", tmp_path / "none", "TLS_KEY cannot be used: [Errno 2]"),
        ("KEY", pair["certificate"], "TLS_KEY cannot be used: "),
        ("KEY", locked, "TLS_KEY cannot be used: the key has a password"),
        ("CLIENT_CA", pair["key"], "JOSE_HSM_TLS_CLIENT_CA cannot be used: "),
    ):
        done = jose_hsm({**environment, **good, f"JOSE_HSM_TLS_{name}": str(path)}, "serve")
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_what_the_settings_name_is_looked_for(environment, tmp_path):
    assert jose_hsm(environment, "config", "check").returncode == 0
    missing = {
        "JOSE_HSM_PIN_FILE": str(tmp_path / "pin"),
        "JOSE_HSM_PKCS11_MODULE": "/none.so",
        "JOSE_HSM_JWT_JWKS": str(tmp_path / "jwks"),
        "JOSE_HSM_AUDIT_LOG": str(tmp_path / "none" / "audit.log"),
    }
    done = jose_hsm({**environment, **missing}, "config", "check")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "JOSE_HSM_PKCS11_MODULE: /none.so is not there",
        f"JOSE_HSM_PIN_FILE: {tmp_path / 'pin'} is not there",
        f"JOSE_HSM_JWT_JWKS: {tmp_path / 'jwks'} is not there",
        f"JOSE_HSM_AUDIT_LOG: {tmp_path / 'none'} is not there",
    ]


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("PKCS11_MODULE", "is a directory"),
        ("PIN_FILE", "is a directory"),
        ("JWT_JWKS", "is a directory"),
        ("AUDIT_LOG", "is a directory"),
        ("STATE_DIR", "is no directory"),
    ],
)
def test_a_directory_is_no_file_and_a_file_no_directory(environment, tmp_path, setting, reason):
    (tmp_path / "file").touch()
    place = tmp_path / "file" if setting == "STATE_DIR" else tmp_path
    registry = {"JOSE_HSM_DATABASE_URL": Config.from_env(environment).registry_url}
    given = registry | {f"JOSE_HSM_{setting}": str(place)}
    done = jose_hsm({**environment, **given}, "config", "check")
    assert (done.returncode, done.stdout) == (1, f"JOSE_HSM_{setting}: {place} {reason}\n")


@pytest.mark.parametrize(
    ("octets", "reason"), [(b"\xff\xfe", "is not in UTF-8"), (b"\r\n", "is empty")]
)
def test_a_file_without_a_pin_is_told(environment, tmp_path, octets, reason):
    (tmp_path / "pin").write_bytes(octets)
    given = {"JOSE_HSM_PIN_FILE": str(tmp_path / "pin")}
    done = jose_hsm({**environment, **given}, "config", "check")
    assert (done.returncode, done.stdout) == (
        1,
        f"JOSE_HSM_PIN_FILE: {tmp_path / 'pin'} {reason}\n",
    )


GIVEN = {
    "JOSE_HSM_PKCS11_MODULE": "/usr/lib/module.so",
    "JOSE_HSM_TOKEN_LABEL": "label",
    "JOSE_HSM_PIN": "s3cret-pin",
    "JOSE_HSM_DATABASE_URL": "postgresql+psycopg://user:s3cret-word@host/db",
    "JOSE_HSM_AUTH": "token,jwt",
    "JOSE_HSM_JWT_ISSUER": "https://issuer.example",
    "JOSE_HSM_JWT_AUDIENCE": "jose-hsm",
    "JOSE_HSM_JWT_JWKS": "https://issuer.example/jwks",
    "JOSE_HSM_ADMINS": "token:alice|mtls:CN=b,O=c",
    "JOSE_HSM_DESTROY_AFTER": "P30D",
    "JOSE_HSM_PAGES": "0",
}


def test_settings_are_shown_as_they_are_written_and_secrets_are_not():
    shown = jose_hsm(GIVEN, "config", "show", "--json")
    table = jose_hsm(GIVEN, "config", "show")
    assert "s3cret" not in shown.stdout + table.stdout
    said = {name: text for name, text in json.loads(shown.stdout).items() if name in GIVEN}
    secrets = dict.fromkeys(["JOSE_HSM_PIN", "JOSE_HSM_DATABASE_URL"], "(not shown)")
    assert said == GIVEN | secrets
    assert {line.split()[0] for line in table.stdout.splitlines() if line.endswith("yes")} == set(
        GIVEN
    )


def test_where_another_token_is_named_none_is_made(tmp_path):
    token = DevelopmentToken(state_dir=tmp_path, given=GIVEN)
    settings = {**GIVEN, **token.settings()}
    token.make(settings)
    assert list(tmp_path.iterdir()) == []
    assert settings.keys() - GIVEN.keys() == {"JOSE_HSM_STATE_DIR", "SOFTHSM2_CONF"}
