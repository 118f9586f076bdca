"""A JWK set is fetched in time or not at all."""

import socket
from threading import Event

import pytest

from app.auth import jwks_source
from tests.shared.waiting import PATIENCE_SECONDS, until


def test_nobody_waits_for_a_name_that_is_looked_up_slowly(monkeypatch):
    over, asked = Event(), []

    def look_up(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        over.wait(PATIENCE_SECONDS)
        raise socket.gaierror

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(jwks_source, "_FETCH_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        with pytest.raises(TimeoutError):
            jwks_source.reader_of("https://issuer.example/jwks")()
        assert until(lambda: asked) == ["issuer.example"]  # however late: the look-up goes on
    finally:
        over.set()
