"""Whom the service believes where a client is: failed attempts and audit lines go by that."""

import http.client
import json
import socket
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.auth.certificates import Proxy
from app.auth.client_address import ClientAddress
from tests.services.test_nginx import NGINX, ask, nginx, through
from tests.shared.api import PREFIX
from tests.shared.callers import WITH_TOKENS, token_for
from tests.shared.forks import server
from tests.shared.waiting import ANSWER

FLASK = Flask("test")
SECRET = "0123456789abcdef"
CLIENT = "192.0.2.1"
SECRETLY = {"X-Real-IP": CLIENT, "X-Proxy-Secret": SECRET}

CASES: Mapping[str, tuple[str, bool, dict[str, str], str]] = {
    # connection, secret configured, headers, believed
    "socket": ("unix", False, {"X-Real-IP": CLIENT}, CLIENT),
    "socket, version 6": ("unix", False, {"X-Real-IP": "2001:db8::1"}, "2001:db8::1"),
    "socket, nothing said": ("unix", False, {}, "unix:"),
    "socket, no address": ("unix", False, {"X-Real-IP": "alice"}, "unix:"),
    "socket, several": ("unix", False, {"X-Real-IP": f"{CLIENT},192.0.2.2"}, "unix:"),
    "socket, another header": ("unix", False, {"X-Forwarded-For": CLIENT}, "unix:"),
    "socket, without the secret": ("unix", True, {"X-Real-IP": CLIENT}, "unix:"),
    "socket, wrong secret": ("unix", True, SECRETLY | {"X-Proxy-Secret": "0"}, "unix:"),
    "socket, with the secret": ("unix", True, SECRETLY, CLIENT),
    "TCP": ("tcp", False, SECRETLY, "127.0.0.1"),
    "TCP, without the secret": ("tcp", True, {"X-Real-IP": CLIENT}, "127.0.0.1"),
    "TCP, with the secret": ("tcp", True, SECRETLY, CLIENT),
}


@pytest.mark.parametrize("name", CASES)
def test_an_address_is_believed_of_the_proxy_alone(name):
    connection, has_secret, headers, expected = CASES[name]
    is_local = connection == "unix"
    with socket.socket(socket.AF_UNIX if is_local else socket.AF_INET) as channel:
        environ = {"gunicorn.socket": channel, "REMOTE_ADDR": "" if is_local else "127.0.0.1"}
        context = FLASK.test_request_context(headers=headers, environ_overrides=environ)
        known = ClientAddress(Proxy(SECRET) if has_secret else None)
        assert known.of(context.request) == expected


def settings(environment: Mapping[str, str], directory: Path) -> dict[str, str]:
    own = {"JOSE_HSM_AUDIT_LOG": str(directory / "audit.log"), "JOSE_HSM_AUTH_FAILURES": "2"}
    return {**environment, **WITH_TOKENS, **own}


def addresses(directory: Path) -> set[str]:
    lines = (directory / "audit.log").read_text().splitlines()
    return {json.loads(line)["address"] for line in lines}


def on_socket(path: Path, bearer: str, client: str) -> int:
    connection = http.client.HTTPConnection("localhost", timeout=ANSWER.seconds)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    headers = {"Authorization": f"Bearer {bearer}", "X-Real-IP": client}
    with closing(connection):
        return ask(connection, "DELETE", f"{PREFIX}/keys/unknown", headers=headers).status


def test_on_a_socket_failures_and_audit_lines_go_by_what_the_proxy_says(environment, tmp_path):
    path = tmp_path / "http.sock"
    with server(settings(environment, tmp_path), bind=f"unix:{path}", workers=1):
        bad, good = "jh_" + "A" * 43, token_for(environment, "token:alice")
        assert [on_socket(path, bad, CLIENT) for _ in range(3)] == [401, 401, 429]
        assert on_socket(path, bad, "192.0.2.2") == 401
        assert on_socket(path, good, CLIENT) == 404
        assert addresses(tmp_path) == {CLIENT}


@pytest.mark.parametrize("name", [CLIENT, "x", b"\0\xff"])
def test_what_a_client_calls_its_own_socket_is_no_address(environment, tmp_path, monkeypatch, name):
    path = tmp_path / "http.sock"
    monkeypatch.chdir(tmp_path)
    token = token_for(environment, "token:alice")
    with server(settings(environment, tmp_path), bind=f"unix:{path}", workers=1):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(ANSWER.seconds)
            client.bind(name)
            client.connect(str(path))
            fields = f"Host: a\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n"
            request = f"DELETE {PREFIX}/keys/unknown HTTP/1.1\r\n{fields}\r\n"
            client.sendall(request.encode())
            assert client.recv(65_536).startswith(b"HTTP/1.1 404")
            twice = f"GET / HTTP/1.1\r\n{2 * fields}\r\n"
            client.sendall(twice.encode())
            assert client.recv(65_536).startswith(b"HTTP/1.1 400")
        assert addresses(tmp_path) == {"unix:"}


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_behind_nginx_as_deployed_audit_lines_have_the_address(environment: Any, tmp_path: Path):
    backend = f"unix:{tmp_path}/http.sock"
    headers = {"Authorization": f"Bearer {token_for(environment, 'token:alice')}"}
    with (
        server(settings(environment, tmp_path), bind=backend, workers=1),
        nginx(tmp_path / "run", backend) as port,
        closing(through(port)) as connection,
    ):
        spoofed = headers | {"X-Real-IP": CLIENT}
        assert ask(connection, "DELETE", f"{PREFIX}/keys/unknown", headers=spoofed).status == 404
    assert addresses(tmp_path) == {"127.0.0.1"}
