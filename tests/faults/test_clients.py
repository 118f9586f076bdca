"""Callers that are slow, gone, or a thousand at a time."""

import asyncio
import http.client
import json
import socket
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from scripts.throwaway import make_token, server
from tests.faults.service import until
from tests.shared.api import PREFIX, Api

DATA = "ZGF0YQ"
SLOW = 8
CONNECTIONS = 1_000
ROUNDS = 3
PATIENCE_SECONDS = 60


def head(path: str, body: bytes) -> bytes:
    return (
        f"POST {PREFIX}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()


def connected(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=PATIENCE_SECONDS)


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def mac_body(url: str) -> bytes:
    kid = Api.over_http(url).create(kty="oct", alg="HS256")["kid"]
    return json.dumps({"kid": kid, "alg": "HS256", "data": DATA}).encode()


def test_callers_who_send_a_byte_now_and_then_hold_up_nobody(environment):
    with server(environment) as running, ExitStack() as open_sockets:
        body = mac_body(running.url)
        slow = [open_sockets.enter_context(connected(running.url)) for _ in range(SLOW)]
        for client in slow:
            client.sendall(head("/mac", body))
        expected = Api.over_http(running.url).ok("/mac", json.loads(body))
        for sent in range(5):
            for client in slow:
                client.sendall(body[sent : sent + 1])
            assert Api.over_http(running.url).ok("/mac", json.loads(body)) == expected
            time.sleep(0.2)
        for client in slow:  # and those who end at last are answered as everybody
            client.sendall(body[5:])
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert (answer.status, json.loads(answer.read())) == (200, expected)


@pytest.mark.parametrize("kind", [{"kty": "RSA", "alg": "PS256"}, {"kty": "oct", "alg": "A256GCM"}])
def test_a_key_whose_caller_hangs_up_is_whole_and_audited(kind, tmp_path):
    settings = make_token(tmp_path / "state")
    with server(settings, workers=1) as running:
        body = json.dumps(kind).encode()
        for _ in range(3):
            with connected(running.url) as client:
                client.sendall(head("/keys", body) + body)
        until(lambda: len(created(settings)) == 3, seconds=PATIENCE_SECONDS)
        for line in created(settings):
            alg = kind["alg"]
            if alg == "PS256":
                use = "/sign", {"kid": line["new_kid"], "alg": alg, "data": ""}
            else:
                use = "/encrypt", {"kid": line["new_kid"], "alg": "dir", "enc": alg, "data": ""}
            Api.over_http(running.url).ok(*use)


def created(settings: dict[str, str]) -> list[dict[str, str]]:
    """Return the audit lines of creations."""
    log = Path(settings["JOSE_HSM_STATE_DIR"], "audit.log")
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line for line in lines if line["new_kid"]]


def test_a_thousand_connections_are_all_served(environment):
    with server(environment) as running:
        body = mac_body(running.url)
        expected = Api.over_http(running.url).ok("/mac", json.loads(body))
        pid = running.process.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
        before = [resident_kib(int(worker)) for worker in workers]
        answers = asyncio.run(crowd(running.url, head("/mac", body) + body))
        statuses = Counter(status for status, _ in answers)
        assert statuses.keys() <= {200, 503}
        assert sum(statuses.values()) == CONNECTIONS * ROUNDS
        assert statuses[200] > statuses[503]
        for status, content in answers:
            assert content == expected if status == 200 else content["error"] == "unavailable"
        grown = [resident_kib(int(worker)) for worker in workers]
        assert max(after - start for after, start in zip(grown, before, strict=True)) < 100 * 1024


async def crowd(url: str, request: bytes) -> list[tuple[int, dict[str, str]]]:
    """Open all connections, then send on each, again and again; return every status and body."""
    address = urlsplit(url)
    clients = [Caller(address.hostname or "", address.port or 0) for _ in range(CONNECTIONS)]
    for client in clients:
        await client.connect()
    answers = []
    for _ in range(ROUNDS):
        asked = (client.ask(request) for client in clients)
        answers += await asyncio.wait_for(asyncio.gather(*asked), PATIENCE_SECONDS)
    for client in clients:
        client.hang_up()
    return answers


class Caller:
    """One connection, opened again where the server has said that it closes it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._address)

    async def ask(self, request: bytes) -> tuple[int, dict[str, str]]:
        if self._writer.is_closing():
            await self.connect()
        self._writer.write(request)
        top = (await self._reader.readuntil(b"\r\n\r\n")).decode("ascii")
        status, *lines = top.splitlines()
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await self._reader.readexactly(int(headers["content-length"]))
        if headers["connection"] == "close":
            self.hang_up()
        return int(status.split()[1]), json.loads(body)

    def hang_up(self) -> None:
        self._writer.close()
