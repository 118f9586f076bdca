"""The ways to authenticate are used as docs/authentication.md says."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.throwaway import ROOT, make_token
from tests.services.test_certificates_behind_nginx import SWITCHED_ON
from tests.services.test_nginx import NGINX, nginx
from tests.shared.documents import DOCUMENTS
from tests.shared.forks import server
from tests.shared.issuer import BAD, Issuer
from tests.shared.typed import searched
from tests.shared.waiting import COMMAND

WAYS = {
    heading: [block.code for block in blocks if block.language == "sh"]
    for heading, blocks in DOCUMENTS["docs/authentication.md"].sections.items()
    if heading.startswith("With ")
}


def shell(script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        check=False,
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=COMMAND.seconds,
    )


def exported(block: str, directory: Path, **more: str) -> dict[str, str]:
    """Run ``block`` in ``directory``; return the settings that it exports."""
    with searched() as path:
        done = shell(f"cd {directory}\n{block}\nenv -0", **more, PATH=path)
    assert done.returncode == 0, done
    variables = dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)
    return {name: variables[name] for name in variables if name.startswith("JOSE_HSM_")}


@contextmanager
def authenticating(
    way: str, state: dict[str, str], directory: Path, serve: Callable[..., Any], **more: str
) -> Iterator[Callable[[], str]]:
    """Serve with the settings that the section ``way`` exports; give what its callers then see."""
    settings, calls = WAYS[way]
    given = exported(settings, directory, **more)
    with serve(state | given, workers=1) as url, searched() as path:
        script = re.sub(r"^API=.*$", "", calls, flags=re.MULTILINE)
        scheme = "https" if "JOSE_HSM_TLS_KEY" in given else "http"
        api = url.replace("http:", f"{scheme}:") + "/v1/crypto"

        def call() -> str:
            environment = state | given | more | {"API": api, "PATH": path}
            done = shell(f"cd {directory}\n{script}", **environment)
            assert done.returncode == 0, done
            return done.stdout

        yield call


def test_each_way_to_authenticate_has_settings_and_calls():
    assert {way: len(blocks) for way, blocks in WAYS.items()} == {
        "With API tokens": 2,
        "With JWTs": 2,
        "With client certificates": 2,
        "With client certificates behind nginx": 2,
    }


def test_api_tokens_are_used_as_it_says(tmp_path, serve):
    state = make_token(tmp_path / "state")
    with authenticating("With API tokens", state, tmp_path, serve) as call:
        printed = call()
    assert '"principal":"token:colleague"' in printed
    assert '"token:ci"' in printed.splitlines()
    assert printed.count("unauthorized") == 1


def test_jwts_are_used_as_it_says(tmp_path, serve):
    issuer = Issuer()
    (tmp_path / "issuer.json").write_text(issuer.jwks)
    state = make_token(tmp_path / "state")
    with authenticating("With JWTs", state, tmp_path, serve, JWT=issuer.token()) as call:
        assert call() == "[]\n"
    with authenticating("With JWTs", state, tmp_path, serve, JWT=BAD["crit"](issuer)) as call:
        assert call() == "null\n"


def test_client_certificates_are_used_as_it_says(tmp_path, serve):
    state = make_token(tmp_path / "state")
    with authenticating("With client certificates", state, tmp_path, serve) as call:
        printed = call()
    assert '"mtls:uri:spiffe://example.org/ci"' in printed
    assert "BEGIN PUBLIC KEY" in printed


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_client_certificates_behind_nginx_are_used_as_it_says(tmp_path_factory):
    directory = tmp_path_factory.mktemp("n")
    settings, calls = WAYS["With client certificates behind nginx"]
    exported(WAYS["With client certificates"][0], directory)
    given = exported(settings, directory)
    files = {
        "jose-hsm-secret.conf": (directory / "jose-hsm-secret.conf").read_text(),
        "clients.pem": (directory / "ca.pem").read_text(),
        "fullchain.pem": (directory / "server.pem").read_text(),
        "privkey.pem": (directory / "server.key").read_text(),
    }
    backend = f"unix:{directory}/http.sock"
    with (
        server(make_token(directory / "state") | given, bind=backend, workers=1),
        nginx(directory / "run", backend, SWITCHED_ON, files) as port,
    ):
        done = shell(f"cd {directory}\n{calls.replace('127.0.0.1/', f'127.0.0.1:{port}/')}")
    assert done.returncode == 0, done
    assert '"mtls:uri:spiffe://example.org/ci"' in done.stdout.splitlines()
    assert done.stdout.count("unauthorized") == 1
