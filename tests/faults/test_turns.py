"""One principal who asks for more than there are threads, and others who want to be served."""

import http.client
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import requests

from scripts.throwaway import make_token
from tests.faults.control import Fault
from tests.faults.service import Service, serving
from tests.shared.api import Answer, Api
from tests.shared.callers import WITH_TOKENS, token_for
from tests.shared.waiting import ANSWER, until

THREADS = 16
TURNS, TURNS_OF_BATCHES = 12, 2
MANY = 3 * THREADS
BATCHES = THREADS + 8
HELD = Fault(function="C_SignInit", hangs=True)
"""MACs come back from the token when the test says so; the canary does not sign."""

SETTINGS = {
    **WITH_TOKENS,
    "GUNICORN_CMD_ARGS": f"--threads {THREADS}",
    "JOSE_HSM_CALL_SECONDS": "600",
    "JOSE_HSM_REQUEST_SECONDS": "600",
    "JOSE_HSM_SESSIONS": str(THREADS),
}


class Whole(NamedTuple):
    """An answer, as ``Api`` wants it."""

    status_code: int
    headers: Any
    content: bytes


def in_one_piece(url: str, *, bearer: str) -> Api:
    """Call on new connections, and send each request at once: who is slow would get 408."""
    address = urlsplit(url)

    def send(method: str, path: str, **arguments: Any) -> Whole:
        request: Any = requests.Request(method, url + path, **arguments).prepare()
        body = request.body or b""
        fields = {**request.headers, "Host": address.netloc, "Authorization": f"Bearer {bearer}"}
        lines = [f"{method} {request.path_url} HTTP/1.1", *map(": ".join, fields.items())]
        with socket.create_connection(
            (address.hostname, address.port), timeout=ANSWER.seconds
        ) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            with closing(http.client.HTTPResponse(connection)) as answer:
                answer.begin()
                return Whole(answer.status, answer.headers, answer.read())

    return Api(send)


class Callers:
    """Alice, who asks much, and Bob; each call is on a connection of its own."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._tokens = {
            name: token_for(service.settings, f"token:{name}") for name in ("alice", "bob")
        }
        self.kid = self.api("alice").create(kty="oct", alg="HS256")["kid"]

    def api(self, name: str) -> Api:
        return in_one_piece(self._service.url, bearer=self._tokens[name])

    def mac(self) -> Answer:
        return self.api("alice").post("/mac", self._body)

    def batch(self) -> Answer:
        parts = [{"op": "mac", "body": self._body} for _ in range(2)]
        return self.api("alice").post("/batch", {"requests": parts})

    @property
    def _body(self) -> dict[str, str]:
        return {"kid": self.kid, "alg": "HS256", "data": ""}

    @contextmanager
    def flood(self, call: str, times: int, *, turns: int) -> Iterator[list[Future[Answer]]]:
        """Ask so many ``times`` at once, and hold at the token what has a turn during the block.

        It begins when all ``turns`` are taken.
        """
        before = self._service.faults.struck()
        self._service.inject(HELD)
        with ThreadPoolExecutor(times) as pool:
            try:
                futures = [pool.submit(getattr(self, call)) for _ in range(times)]
                until(lambda: self._service.faults.struck() >= before + turns)
                yield futures
            finally:
                self._service.heal()


@contextmanager
def two_callers(tmp_path: Path, **settings: str) -> Iterator[Callers]:
    environment = {**make_token(tmp_path / "state"), **SETTINGS, **settings}
    with serving(tmp_path, settings=environment) as service:
        yield Callers(service)


def unanswered(futures: list[Future[Answer]]) -> int:
    return sum(not future.done() for future in futures)


def statuses(futures: list[Future[Answer]]) -> Counter[int]:
    return Counter(future.result().status for future in futures)


@pytest.mark.parametrize(
    ("call", "times", "turns"), [("mac", MANY, TURNS), ("batch", BATCHES, TURNS_OF_BATCHES)]
)
def test_who_asks_too_much_at_once_waits_alone(tmp_path, call, times, turns):
    with two_callers(tmp_path) as callers:
        with callers.flood(call, times, turns=turns) as flood:
            assert callers.api("bob").get("/keys").status == 200
            assert unanswered(flood) == times, "others stood in line"
        assert statuses(flood) == {200: times}  # nobody is lost


def test_batches_leave_turns_to_their_own_principal(tmp_path):
    with two_callers(tmp_path) as callers:
        with callers.flood("batch", BATCHES, turns=TURNS_OF_BATCHES) as batches:
            assert callers.api("alice").get("/keys").status == 200
            assert unanswered(batches) == BATCHES
        assert statuses(batches) == {200: BATCHES}


def test_who_waits_too_long_is_told_when_to_come_again(tmp_path):
    with two_callers(tmp_path, JOSE_HSM_REQUEST_SECONDS="3") as callers:
        with callers.flood("mac", MANY, turns=TURNS) as flood:
            until(lambda: unanswered(flood) == TURNS)
        assert statuses(flood) == {200: TURNS, 429: MANY - TURNS}
        for answer in (future.result() for future in flood):
            if answer.status == 429:
                assert answer.refusal == (429, "too_many_requests")
                assert "of this principal" in answer.body["description"]
                assert int(answer.headers["Retry-After"]) > 0
