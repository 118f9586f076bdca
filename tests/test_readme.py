"""The README does what it says: its commands run, its tables are those of the code."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.config import settings_table
from scripts.throwaway import ROOT, make_token, server
from tests.issuer import BAD, Issuer
from tests.test_certificates_behind_nginx import SWITCHED_ON
from tests.test_nginx import NGINX, nginx

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
FLOWS = [block for block in BLOCKS if "post " in block]
WAYS = {
    section.partition("\n")[0].removeprefix("With "): re.findall(
        r"```sh\n(.*?)```", section, re.DOTALL
    )
    for section in re.split(r"\n##+ ", README)
    if section.startswith("With ")
}
WAY_BLOCKS = [block for blocks in WAYS.values() for block in blocks]
COMMANDS = [
    block
    for block in BLOCKS
    if "jose-hsm " in block and "audit" not in block and block not in WAY_BLOCKS
]
WATCHING = [block for block in BLOCKS if "SERVICE=" in block or "jose-hsm audit" in block]
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


def shell(script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        check=False,
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def functions(url: str) -> str:
    """Return the definitions that the README gives before it uses them, for the server ``url``."""
    definitions = [
        line
        for block in BLOCKS
        if block not in WAY_BLOCKS
        for line in block.splitlines()
        if re.match(r"API=|\w+\(\) ", line)
    ]
    return "\n".join(definitions).replace("http://127.0.0.1:8000", url) + "\n"


@pytest.mark.parametrize("block", FLOWS, ids=range(len(FLOWS)))
def test_every_curl_block_runs(block, server):
    done = shell(functions(server) + re.sub(r"^API=.*$", "", block, flags=re.MULTILINE))
    assert done.returncode == 0, done
    assert '"error"' not in done.stdout, done


def test_the_first_block_prints_what_it_says(server):
    done = shell(functions(server) + re.sub(r"^API=.*$", "", FLOWS[0], flags=re.MULTILINE))
    assert done.stdout.rstrip().endswith('"valid":true}')


@pytest.mark.parametrize("name", REFERENCE_FLOWS)
def test_the_blocks_cover_every_flow_of_the_reference(name):
    assert any(REFERENCE_FLOWS[name] in block for block in FLOWS)


@pytest.mark.parametrize("block", COMMANDS, ids=[block.strip() for block in COMMANDS])
def test_every_command_of_the_operator_runs(block, tmp_path):
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    done = shell(block, **make_token(tmp_path / "state"), PATH=path)
    assert done.returncode == 0, done


def exported(block: str, directory: Path, **more: str) -> dict[str, str]:
    """Run ``block`` in ``directory``; return the settings that it exports."""
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
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
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    given = exported(settings, directory, **more)
    with serve(state | given, workers=1) as url:
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
        "API tokens": 2,
        "JWTs": 2,
        "client certificates": 2,
        "client certificates behind nginx": 2,
    }


def test_api_tokens_are_used_as_it_says(tmp_path, serve):
    state = make_token(tmp_path / "state")
    with authenticating("API tokens", state, tmp_path, serve) as call:
        printed = call()
    assert '"principal":"token:colleague"' in printed
    assert '"token:ci"' in printed.splitlines()
    assert printed.count("unauthorized") == 1


def test_jwts_are_used_as_it_says(tmp_path, serve):
    issuer = Issuer()
    (tmp_path / "issuer.json").write_text(issuer.jwks)
    state = make_token(tmp_path / "state")
    with authenticating("JWTs", state, tmp_path, serve, JWT=issuer.token()) as call:
        assert call() == "[]\n"
    with authenticating("JWTs", state, tmp_path, serve, JWT=BAD["crit"](issuer)) as call:
        assert call() == "null\n"


def test_client_certificates_are_used_as_it_says(tmp_path, serve):
    state = make_token(tmp_path / "state")
    with authenticating("client certificates", state, tmp_path, serve) as call:
        printed = call()
    assert '"mtls:uri:spiffe://example.org/ci"' in printed
    assert "BEGIN PUBLIC KEY" in printed


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_client_certificates_behind_nginx_are_used_as_it_says(tmp_path_factory):
    directory = tmp_path_factory.mktemp("n")
    settings, calls = WAYS["client certificates behind nginx"]
    exported(WAYS["client certificates"][0], directory)
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


def test_what_watches_a_running_service_runs(server, environment):
    assert len(WATCHING) == 2
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    create = """post keys '{"kty":"oct","alg":"HS256"}'\n"""
    script = functions(server) + create + "".join(WATCHING)
    script = script.replace("SERVICE=http://127.0.0.1:8000", f"SERVICE={server}")
    done = shell(script, **environment, PATH=path)
    assert done.returncode == 0, done
    assert '"status":"live"' in done.stdout
    assert "jose_hsm_token_up" in done.stdout
    assert "torn: 0" in done.stdout


def test_the_settings_are_those_of_the_code():
    assert settings_table() in README


@contextmanager
def make_run(state_dir: str, stop: Callable[["subprocess.Popen[str]"], None]) -> Iterator[str]:
    """Run ``make run``; give the URL that it prints; see that ``stop`` leaves nothing behind."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # GNU make passes its options on in the environment; those of a surrounding make are not ours.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    process = subprocess.Popen(
        ["make", "run", f"PORT={port}", f"STATE_DIR={state_dir}"],
        cwd=ROOT,
        env=environment | {"WEB_CONCURRENCY": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if url := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        else:
            pytest.fail("".join(lines))
        yield url[0]
    finally:
        stop(process)
        rest, _ = process.communicate(timeout=60)
    assert "Traceback" not in rest
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_make_run_serves_and_finds_its_keys_again(tmp_path):
    create = """post keys '{"kty":"oct","alg":"HS256"}' | jq -r .kid"""
    with make_run(str(tmp_path / "state"), lambda make: os.killpg(make.pid, signal.SIGINT)) as url:
        kid = shell(functions(url) + create).stdout.strip()
    with make_run(str(tmp_path / "state"), lambda make: make.terminate()) as url:
        done = shell(functions(url) + f"""post mac '{{"kid":"{kid}","alg":"HS256","data":""}}'""")
        assert '"mac"' in done.stdout
        beside = {name: "" for name in os.environ if name.startswith(("JOSE_HSM_", "SOFTHSM2"))}
        beside["JOSE_HSM_STATE_DIR"] = str(tmp_path / "state")
        done = shell("unset SOFTHSM2_CONF; .venv/bin/jose-hsm reconcile", **beside)
        assert (done.returncode, done.stdout.count(": 0")) == (0, 3), done
