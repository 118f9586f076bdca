"""What is answered without Flask's own contexts is what Flask answers, to the last byte."""

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from flask import has_app_context, has_request_context

from app import current_request
from app.http.request_body import BodyWanted, Unreadable
from app.http.router import DIRECT
from app.http.turns import TURN, TurnAwaited
from app.service import service_of
from tests.shared.api import Api
from tests.shared.in_process import Response, sender

DATA = "eHh4eA"
RANDOM = ("ciphertext", "iv", "jwe", "jws", "signature", "tag")
UNKNOWN = "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11"
JSON = {"Content-Type": "application/json"}
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"X-Request-Id": "a.b", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"},
    {"X-Request-Id": "ä", "Idempotency-Key": "1"},
    {"Host": "attacker.example"},
    {"Origin": "https://attacker.example"},
    {"Content-Encoding": "gzip"},
    {"X-Real-IP": "127.0.0.2"},
    {"Content-Type": "text/plain"},
    {"Content-Type": "application/json; charset=latin-1"},
)
TEXTS = (b"", b"{", b"[]", b"null", b'{"a":1,"a":2}', b"\xff", b"{}", b'{"kid":"\\ud800"}')


def bodies(local: Api) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give paths and bodies: good ones, refused ones, and some that are neither."""
    mac = {"kid": local.create(kty="oct", alg="HS256")["kid"], "alg": "HS256", "data": DATA}
    aes = local.create(kty="oct", alg="A256GCM")["kid"]
    pair = local.create(kty="EC", crv="P-256", alg="ES256")["kid"]
    content = {"kid": aes, "alg": "dir", "enc": "A256GCM", "data": DATA}
    signed = {"kid": pair, "alg": "ES256", "data": DATA}
    jwe = dict(local.post("/encrypt", content).body)
    jws = dict(local.post("/sign", signed).body) | {"data": DATA}
    good = (("mac", mac), ("encrypt", content), ("decrypt", jwe), ("sign", signed), ("verify", jws))
    for name, body in good:
        yield name, body
        yield name, body | {"kid": UNKNOWN}
        yield name, body | {"kid": 1}
        yield name, body | {"alg": "HS512"}
        yield name, body | {"serialization": "compact"}
    yield "mac", mac | {"mac": DATA}
    yield "decrypt", jwe | {"tag": 22 * "A"}
    yield "verify", jws | {"data": "eA"}


@pytest.fixture(scope="module")
def asked(local: Api) -> list[tuple[str, bytes, Mapping[str, str]]]:
    """Requests to all direct endpoints: their path, body and headers."""
    known = [(f"/v1/crypto/{name}", json.dumps(body).encode()) for name, body in bodies(local)]
    paths = dict(known)
    assert len(paths) == len(DIRECT)
    return [
        *((path, body, JSON) for path, body in known),
        *((path, text, JSON) for path in paths for text in TEXTS),
        *((path, body, JSON | headers) for path, body in paths.items() for headers in HEADERS),
        *((f"{path}?a=b", body, JSON) for path, body in paths.items()),
    ]


class Watched:
    """The service in this process, and all that an answer leaves behind."""

    def __init__(self, application: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.application = application
        self.service = service_of(application)
        self._send = sender(application)
        self._lines: list[str] = []
        monkeypatch.setattr(self.service.stream, "put", lambda line, *_: self._lines.append(line))

    def sees(self, path: str, body: bytes, headers: Mapping[str, str]) -> Any:
        """Return the answer, its line in the log, and the last one of the audit."""
        self._lines.clear()
        answer = self._send("POST", path, data=body, headers=headers)
        audit = self.service.audit_log.last(1) if self.service.audit_log else []
        lines = [line for line in map(told, self._lines) if "endpoint" in line]
        return (*self._compared(answer), lines, [*map(lasting, audit)])

    def sees_all(self, requests: list[Any]) -> tuple[list[Any], Counter[Any]]:
        """Return what each leaves behind, and what of all is counted."""
        before = self._counts()
        seen = [self.sees(*one) for one in requests]
        return seen, self._counts() - before

    def _compared(self, answer: Response) -> tuple[Any, ...]:
        headers = [(name, value) for name, value in answer.headers if name != "X-Request-Id"]
        return answer.status_code, headers, told(answer.content)

    def _counts(self) -> Counter[tuple[str, int]]:
        self.service.metrics._share()  # else some are still to be counted
        counts: Counter[tuple[str, int]] = Counter()
        for one in self.service.metrics.counts():  # parts of batches are counted by the same names
            counts[one.endpoint, one.status] += one.number
        return counts


def told(text: str | bytes) -> dict[str, Any]:
    """Return the members of an answer or a line, of random ones the length."""
    members = {name: lengths(name, value) for name, value in json.loads(text).items()}
    return lasting(members)


def lengths(name: str, value: Any) -> Any:
    return len(value) if name in RANDOM and isinstance(value, str) else value


def lasting(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that are the same each time."""
    ours = ("time", "prev", "request_id", "queue_ms", "hsm_ms", "total_ms", "trace_id")
    return {name: value for name, value in members.items() if name not in ours}


@pytest.fixture
def watched(application: Any, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """The service, watched."""
    return Watched(application, monkeypatch)


def test_all_is_as_flask_has_it(watched, asked, monkeypatch):
    watched.sees_all(asked)  # from now on all paths are known
    ours, counted = watched.sees_all(asked)
    monkeypatch.setattr(watched.application, "_direct", frozenset())
    theirs, counted_by_flask = watched.sees_all(asked)
    for one, its, as_flask in zip(asked, ours, theirs, strict=True):
        assert its == as_flask, one
    assert counted == counted_by_flask
    assert counted.total() == len(asked)


def test_contexts_are_our_own_where_an_endpoint_is_direct(watched, asked, monkeypatch):
    watched.sees(*asked[0])
    monkeypatch.setattr("flask.Flask.wsgi_app", None)
    status, *_ = watched.sees(*asked[0])
    assert status == 200


@pytest.mark.parametrize("failing", ["audit", "view", "hook"])
def test_what_goes_wrong_is_answered_as_flask_does(watched, asked, monkeypatch, failing):
    def fail(*_arguments: Any, **_named: Any) -> None:
        raise OSError("failed on purpose")

    watched.sees(*asked[0])
    service = watched.service
    fails = {
        "audit": (service.audit_log, "record"),
        "view": (type(service.keyring.use), "mac"),
        "hook": (service.metrics, "answered"),
    }
    owner, name = fails[failing]
    monkeypatch.setattr(owner, name, fail)
    answer = watched.sees(*asked[0])
    monkeypatch.setattr(watched.application, "_direct", frozenset())
    assert answer == watched.sees(*asked[0])
    assert answer[0] in {500, 503}
    current_request.end()  # as the next request does where a hook has failed


@pytest.mark.parametrize("raised", [BodyWanted, TurnAwaited])
def test_what_the_server_is_to_hear_of_leaves_no_context_behind(watched, asked, raised):
    def refuse(_caller: object) -> None:
        raise raised

    path, body, headers = asked[0]
    watched.sees(path, body, headers)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "HTTP_HOST": "127.0.0.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "CONTENT_TYPE": "application/json",
    }
    for _ in range(2):
        for more in ({TURN: refuse}, {"wsgi.input": Unreadable(raised())}):
            with pytest.raises(raised):
                watched.application({**environ, **more}, None)
            assert not has_app_context()
            assert not has_request_context()
    answer = watched.application({**environ, "wsgi.input": io.BytesIO(body)}, lambda *_: None)
    assert json.loads(b"".join(answer))["mac"]
