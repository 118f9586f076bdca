"""Without authentication: programs of this machine are served, and pages of nobody else."""

from collections.abc import Mapping
from typing import Any

import pytest
import requests

from tests.shared.api import PREFIX, Api
from tests.shared.callers import Callers
from tests.shared.waiting import ANSWER

HERE = (
    "127.0.0.1",
    "127.0.0.1:1",
    "127.9.8.7",
    "localhost",
    "LOCALHOST:80",
    "a.localhost",
    "[::1]:8",
)
ELSEWHERE = (
    *("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example"),
    *("10.0.0.1", "0.0.0.0", "[::]", "[::ffff:10.0.0.1]", "localhost@evil.example", ""),
    *("notlocalhost", "127.0.0.1 evil.example", "[", "2130706433.example"),
)
FOREIGN = (
    "https://evil.example",
    "http://localhost.evil.example",
    "null",
    "",
    "file://",
    "http://[",
)
JWKS = "/.well-known/jwks.json"
PATHS = (
    f"{PREFIX}/keys",
    "/health/live",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/unknown",
    JWKS,
    "/",
)


def ask(url: str, path: str, **headers: str) -> requests.Response:
    return requests.get(url + path, headers=headers, timeout=ANSWER.seconds, allow_redirects=False)


def refusal_of(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


@pytest.mark.parametrize("host", HERE)
def test_names_of_this_machine_are_answered(server: str, host: str) -> None:
    assert ask(server, f"{PREFIX}/keys", Host=host).status_code == 200


@pytest.mark.parametrize("host", ELSEWHERE)
def test_other_names_are_not(server: str, host: str) -> None:
    assert refusal_of(ask(server, f"{PREFIX}/keys", Host=host)) == (421, "misdirected_request")


@pytest.mark.parametrize("header", ["X-Real-IP", "X-Forwarded-For"])
def test_who_comes_from_elsewhere_by_a_proxy_is_not_answered_under_any_name(
    server: str, header: str
) -> None:
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "unix:", "127.0.0.1, ::1"):
        assert ask(server, f"{PREFIX}/keys", **{header: address}).status_code == 200
    for address in ("203.0.113.7", "127.0.0.1, 203.0.113.7", "2001:db8::1", "unknown", ""):
        answer = ask(server, f"{PREFIX}/keys", Host="localhost", **{header: address})
        assert refusal_of(answer) == (421, "misdirected_request")


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_answered_under_another_name(server: str, path: str) -> None:
    assert refusal_of(ask(server, path, Host="evil.example")) == (421, "misdirected_request")


def test_under_another_name_no_key_is_made_or_used(server: str, live: Api) -> None:
    body = {"kid": live.create(kty="oct", alg="HS256")["kid"], "alg": "HS256", "data": ""}
    for path, members in (("/mac", body), ("/keys", {"kty": "oct", "alg": "HS256"})):
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            answer = live.post(path, members, headers=headers)
            assert answer.status == (421 if "Host" in headers else 403)


@pytest.mark.parametrize("origin", FOREIGN)
def test_pages_of_others_are_served_the_published_keys_only(server: str, origin: str) -> None:
    for path in PATHS:
        answer = ask(server, path, Origin=origin)
        if path == JWKS:
            assert answer.status_code == 200
        else:
            assert refusal_of(answer) == (403, "forbidden"), path


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8"])
def test_pages_of_this_machine_are_served(server: str, origin: str) -> None:
    assert ask(server, f"{PREFIX}/keys", Origin=origin).status_code == 200


def test_with_authentication_any_name_and_page_is_served(callers: Callers) -> None:
    headers: Mapping[str, Any] = {"Host": "jose.example", "Origin": "https://app.example"}
    assert callers.alice.get("/keys", headers=headers).status == 200
    assert ask(callers.url, JWKS, **headers).status_code == 200
