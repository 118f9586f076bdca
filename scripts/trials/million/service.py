"""A service that keeps keys in its registry, and how long it takes to answer."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import requests
from sqlalchemy import create_engine, make_url, text

EC: Final = {"kty": "EC", "crv": "P-256", "alg": "ES256", "storage": "wrapped"}
_TIMEOUT_SECONDS: Final = 120
_PAGES: Final = ("page_count", "page_size")


class Service:
    """A service, its keys, and those of them that are in use."""

    def __init__(self, url: str, kids: Sequence[str] = ()) -> None:
        self._url = url
        self._http = requests.Session()
        self.kids = list(kids)

    def make(self, count: int) -> None:
        """Make that many keys in one request."""
        body = EC | {"count": count}
        self.kids += [key["kid"] for key in self._post("keys", body)["keys"]]

    def sign(self, kid: str) -> None:
        """Sign once."""
        self._post("sign", _request(kid))

    def sign_with_all(self, kids: Sequence[str]) -> None:
        """Sign once with each key, in one request."""
        requests_ = [{"op": "sign", "body": _request(kid)} for kid in kids]
        for answer in self._post("batch", {"requests": requests_})["responses"]:
            if answer["status"] != requests.codes.ok:
                raise RuntimeError(answer)

    def list(self, limit: int) -> None:
        """Read the first page of keys."""
        self._get(f"/v1/crypto/keys?limit={limit}")

    def show_status(self) -> None:
        """Read the operator's page."""
        self._get("/status")

    def _get(self, path: str) -> None:
        self._http.get(self._url + path, timeout=_TIMEOUT_SECONDS).raise_for_status()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask until the token is there."""
        while True:
            url = f"{self._url}/v1/crypto/{path}"
            response = self._http.post(url, json=body, timeout=_TIMEOUT_SECONDS)
            if response.status_code != requests.codes.service_unavailable:
                response.raise_for_status()
                return response.json()
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
