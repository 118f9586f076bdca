"""What compose.yaml sets up, and that its parts work together; no container engine is asked."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import create_engine, text

from scripts.throwaway import ROOT
from tests.http.test_http import JSON
from tests.services.test_container import BUILD, CONTAINER, IMAGE, SECRET, copied, said
from tests.services.test_nginx import NGINX, Reply, ask, nginx, through
from tests.shared.api import PREFIX
from tests.shared.postgresql import Cluster, running
from tests.shared.waiting import COMMAND, START, STOP, until

COMPOSE: dict[str, Any] = yaml.safe_load((CONTAINER / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SOCKET = "/run/jose-hsm/http.sock"


def test_it_starts_the_service_its_database_and_what_is_in_front():
    assert set(SERVICES) == {"nginx", "jose-hsm", "database"}
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"nginx": ["443:443"]}


@pytest.mark.parametrize("name", SERVICES)
def test_each_writes_to_its_volumes_only_and_may_do_nothing_else(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service
    assert not service.get("user", "10001").startswith("0")


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_is_in_an_environment(name):
    environment = SERVICES[name].get("environment", {})
    assert not [variable for variable in environment if re.search("PIN|PASSWORD", variable)]
    assert not re.search(r"://[^@/]*:[^@/]*@", str(environment))


def test_keys_and_database_have_no_network_but_sockets_that_nobody_else_has():
    for name in ("jose-hsm", "database"):
        assert SERVICES[name]["network_mode"] == "none"
    mounted = {
        volume: {name for name, service in SERVICES.items() if mounts(service, volume)}
        for volume in COMPOSE["volumes"]
    }
    assert mounted == {
        "state": {"jose-hsm"},
        "database": {"database"},
        "socket": {"nginx", "jose-hsm"},
        "database-socket": {"jose-hsm", "database"},
    }
    assert "listen_addresses=" in SERVICES["database"]["command"]


def mounts(service: Mapping[str, Any], volume: str) -> bool:
    return any(mount.startswith(f"{volume}:") for mount in service["volumes"])


def test_nginx_is_in_the_group_of_the_socket():
    account = re.search(r"--uid (\d+)", (CONTAINER / "prepare").read_text())
    assert account
    assert SERVICES["nginx"]["user"].split(":")[1] == account[1]
    assert f"USER {account[1]}\n" in (CONTAINER / "Containerfile").read_text()


def test_the_files_that_it_mounts_are_there():
    files = [volume.split(":")[0] for volume in SERVICES["nginx"]["volumes"] if volume[0] == "."]
    assert len(files) == 3
    assert all((CONTAINER / file).is_file() for file in files)
    conf = (CONTAINER / files[0]).read_text()
    for secret in SERVICES["nginx"]["secrets"]:
        assert secret["target"] in conf
        assert COMPOSE["secrets"][secret["source"]]["file"].startswith("./tls/")


def test_a_private_key_beside_it_is_neither_committed_nor_given_to_the_engine():
    assert "/deploy/container/tls/\n" in (ROOT / ".gitignore").read_text()
    assert "!deploy/container/tls" not in (ROOT / ".dockerignore").read_text()


def test_the_engine_is_given_what_the_image_is_built_of_and_no_more():
    first, *kept = (ROOT / ".dockerignore").read_text().splitlines()[1:]
    assert first == "*"
    assert {line[1:] for line in kept if line.startswith("!")} == copied(BUILD) | copied(IMAGE)


def test_the_linter_of_containerfiles_finds_nothing():
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), CONTAINER / "Containerfile"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "")


# --- Health checks ---


def health_check(name: str, places: Mapping[str, str]) -> list[str]:
    """Return the health check of a service, for other ``places``."""
    kind, *command = SERVICES[name]["healthcheck"]["test"]
    assert kind == "CMD"
    for old, new in places.items():
        assert any(old in word for word in command)
        command = [word.replace(old, new) for word in command]
    return command


def status(command: list[str]) -> int:
    done = subprocess.run(command, check=False, capture_output=True, timeout=COMMAND.seconds)
    return done.returncode


@pytest.mark.parametrize(("answer", "is_well"), [("200 OK", True), ("503 Away", False)])
def test_the_health_check_tells_a_service_that_lives(answer, is_well, tmp_path):
    path = str(tmp_path / "http.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        service = threading.Thread(target=answer_once, args=(listening, answer))
        service.start()
        command = health_check("jose-hsm", {SOCKET: path, "python": sys.executable})
        done = status(command)
        service.join()
    assert (done == 0) is is_well


def answer_once(listening: socket.socket, answer: str) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(1024)
        connection.sendall(f"HTTP/1.1 {answer}\r\n\r\n".encode())


def test_the_health_check_tells_a_service_that_is_not_there(tmp_path):
    places = {SOCKET: str(tmp_path / "none"), "python": sys.executable}
    assert status(health_check("jose-hsm", places))


# --- All together ---


def with_account(cluster: Cluster) -> str:
    """Make the role and the database that the image makes; return the directory of the socket."""
    engine = create_engine(cluster.url("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text('CREATE ROLE "jose-hsm" LOGIN'))
        connection.execute(text('CREATE DATABASE "jose-hsm" OWNER "jose-hsm"'))
    engine.dispose()
    return cluster.url("").rpartition("host=")[2]


@pytest.mark.long
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.usefixtures("softhsm")
def test_a_client_of_nginx_makes_a_key_whose_row_is_in_postgresql(tmp_path):
    given = SERVICES["jose-hsm"]["environment"]
    path, log = str(tmp_path / "http.sock"), tmp_path / "log"
    with running() as cluster:
        url = given["JOSE_HSM_DATABASE_URL"].replace("/run/postgresql", with_account(cluster))
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "WEB_CONCURRENCY": "1",
            "JOSE_HSM_AUTH": "token",
            "JOSE_HSM_STATE_DIR": str(tmp_path / "state"),
            "JOSE_HSM_BIND": given["JOSE_HSM_BIND"].replace(SOCKET, path),
            "JOSE_HSM_DATABASE_URL": url,
        }
        assert given.keys() <= environment.keys()
        with first_start(environment, path, log) as bearer:
            made = made_through_nginx(tmp_path / "nginx", path, bearer)
            assert made.status == 200, made
        assert keys_in(url) == 1


@contextlib.contextmanager
def first_start(environment: Mapping[str, str], path: str, log: Path) -> Iterator[str]:
    """Start as the container does; give the API token when the service is well."""
    with (
        log.open("w") as output,
        subprocess.Popen(
            [CONTAINER / "start"], env=environment, stdout=output, stderr=output
        ) as service,
    ):
        try:
            is_well = health_check("jose-hsm", {SOCKET: path, "python": sys.executable})
            until(lambda: said(service, log) and status(is_well) == 0, within=START)
            (bearer,) = SECRET.findall(log.read_text())
            yield bearer
        finally:
            service.terminate()
            service.wait(STOP.seconds)


def made_through_nginx(directory: Path, path: str, bearer: str) -> Reply:
    """Return the answer to who has a key made over TLS."""
    with nginx(directory, f"unix:{path}") as port:
        in_front = {"https://127.0.0.1": f"https://127.0.0.1:{port}"}
        assert status(health_check("nginx", in_front)) == 0
        headers = {**JSON, "Authorization": f"Bearer {bearer}"}
        with contextlib.closing(through(port)) as connection:
            body = '{"kty":"oct","alg":"HS256"}'
            return ask(connection, "POST", f"{PREFIX}/keys", body, headers)


def keys_in(url: str) -> int:
    engine = create_engine(url)
    with engine.connect() as connection:
        count = connection.execute(text("SELECT count(*) FROM keys")).scalar_one()
    engine.dispose()
    return int(count)
