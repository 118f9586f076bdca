"""A service that keeps keys in its registry, and how long it takes to answer."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from sqlalchemy import create_engine, make_url, text
from urllib3 import BaseHTTPResponse, PoolManager

EC: Final = {"kty": "EC", "crv": "P-256", "alg": "ES256", "storage": "wrapped"}
_TIMEOUT_SECONDS: Final = 120
_PAGES: Final = ("page_count", "page_size")


class Service:
    """A service, its keys, and those of them that are in use."""

    def __init__(self, url: str, kids: Sequence[str] = ()) -> None:
        self._url = url
        self._http = PoolManager(timeout=_TIMEOUT_SECONDS)
        self.kids = list(kids)

    def make(self, count: int) -> None:
        """Make that many keys in one request."""
        body = EC | {"count": count}
        made = self._ask("POST", "/v1/crypto/keys", body).json()
        self.kids += [key["kid"] for key in made["keys"]]

    def sign(self, kid: str) -> None:
        """Sign once."""
        self._ask("POST", "/v1/crypto/sign", _request(kid))

    def sign_with_all(self, kids: Sequence[str]) -> None:
        """Sign once with each key, in one request."""
        requests_ = [{"op": "sign", "body": _request(kid)} for kid in kids]
        asked = self._ask("POST", "/v1/crypto/batch", {"requests": requests_}).json()
        for answer in asked["responses"]:
            if answer["status"] != HTTPStatus.OK:
                raise RuntimeError(answer)

    def list(self, limit: int) -> None:
        """Read the first page of keys."""
        self._ask("GET", f"/v1/crypto/keys?limit={limit}")

    def show_status(self) -> None:
        """Read the operator's page."""
        self._ask("GET", "/status")

    def _ask(self, method: str, path: str, body: object = None) -> BaseHTTPResponse:
        """Ask until the token is there; without requests, which takes time of its own."""
        while True:
            response = self._http.request(method, self._url + path, json=body)
            if response.status == HTTPStatus.OK:
                return response
            if response.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise RuntimeError(response.data)
            time.sleep(0.05)


def medians(
    services: Sequence[Service], ask: Callable[[Service, int], object], times: int
) -> list[float]:
    """Ask the services in turn; return the median of the seconds of each.

    What else the machine does hits all alike.
    """
    seconds: list[list[float]] = [[] for _ in services]
    for number in range(times):
        for service, its in zip(services, seconds, strict=True):
            started = time.perf_counter()
            ask(service, number)
            its.append(time.perf_counter() - started)
    return [statistics.median(its) for its in seconds]


def size_bytes(url: str) -> int:
    """Return the size of a database, all of it written."""
    engine = create_engine(url)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            pages = [connection.scalar(text(f"PRAGMA {name}")) for name in _PAGES]
            return int(pages[0]) * int(pages[1])
        return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)


@contextmanager
def beside(url: str | None) -> Iterator[str | None]:
    """Make a database on the same server, for one ``with`` block; ``None`` is SQLite's own file."""
    if url is None:
        yield None
        return
    name = f"{make_url(url).database}_few"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}"')
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        try:
            yield make_url(url).set(database=name).render_as_string(hide_password=False)
        finally:
            connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')


def _request(kid: str) -> dict[str, str]:
    return {"kid": kid, "alg": EC["alg"], "data": "AAAA"}
