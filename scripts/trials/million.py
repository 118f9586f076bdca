"""Make keys that the registry keeps, by the hundred thousand, and see what they cost.

    python -m scripts.trials.million --keys 1000000 --url postgresql+psycopg://…/empty

Without a URL the registry is SQLite. Prints the rate, what the database grows by for each key, the
objects on the token, and of one worker the memory and the medians of signatures. Exits with 1 if
keys have left objects on the token, or if one does not sign.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import requests
from sqlalchemy import create_engine, text

from app.config import Config
from app.operator.cli.output import spinner
from app.registry import migrate
from scripts.bench.scale import resident_kib
from scripts.throwaway import Server, create_kek, make_token, server

MOST_OBJECTS: Final = 6
AT_A_TIME: Final = 100
FEW: Final = 10
USED: Final = 200
EC: Final = {"kty": "EC", "crv": "P-256", "alg": "ES256", "storage": "wrapped"}
_TIMEOUT: Final = 120


class Service:
    """A service that keeps keys in its registry."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/crypto"
        self._http = requests.Session()
        self.kids: list[str] = []

    def make(self, count: int) -> None:
        """Make that many keys in one request."""
        self.kids += [key["kid"] for key in self._post("/keys", EC | {"count": count})["keys"]]

    def sign(self, kids: Sequence[str]) -> float:
        """Sign once with each key; return the median of the seconds."""
        seconds = []
        for kid in kids:
            started = time.perf_counter()
            self._post("/sign", {"kid": kid, "alg": EC["alg"], "data": "AAAA"})
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    def page(self) -> float:
        """Read a page of keys; return the seconds."""
        started = time.perf_counter()
        self._http.get(f"{self._url}/keys?limit=50", timeout=_TIMEOUT).raise_for_status()
        return time.perf_counter() - started

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        while True:
            response = self._http.post(self._url + path, json=body, timeout=_TIMEOUT)
            if response.status_code != requests.codes.service_unavailable:
                response.raise_for_status()
                return response.json()
            time.sleep(0.05)


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--url", help="an empty database; by default SQLite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory:
        return _run(_settings(Path(directory) / "state", options.url), options.keys)


def _settings(state_dir: Path, url: str | None) -> dict[str, str]:
    settings = make_token(state_dir) | {"JOSE_HSM_JWKS_TAGGING": "0"}
    if url:
        settings["JOSE_HSM_DATABASE_URL"] = url
        migrate(url)
    create_kek(settings)
    return settings


def _run(settings: dict[str, str], number: int) -> int:
    database = Config.from_env(settings).registry_url
    with server(settings, workers=1) as running:
        few = Service(running.url)
        few.make(FEW)
        few.sign(few.kids)
        few_warm = few.sign(few.kids * (USED // FEW))
        empty_bytes, started = _size(database), time.monotonic()
        service = _fill(running, number)
        seconds = time.monotonic() - started
        grown_bytes = _size(database) - empty_bytes
    started = time.monotonic()
    with server(settings, workers=1) as running:
        again = Service(running.url)
        again.kids = service.kids
        again.sign(again.kids[:1])
        booted = time.monotonic() - started
        cold = again.sign(again.kids[1 :: max(1, number // USED)][:USED])
        again.sign(few.kids)
        many_warm = again.sign(few.kids * (USED // FEW))
        page, memory_kib = min(again.page() for _ in range(5)), resident_kib(running)
    objects = _objects(Path(settings["JOSE_HSM_STATE_DIR"]))
    print(f"{number:>12,} keys made, {number / seconds:,.0f} a second")
    print(f"{grown_bytes / number:>12,.0f} bytes of the database for each")
    print(f"{objects:>12} objects on the token (at most {MOST_OBJECTS})")
    print(f"{1e3 * few_warm:>12.2f} ms a signature, the key in use, with {FEW} keys")
    print(f"{1e3 * many_warm:>12.2f} ms with all; ratio {many_warm / few_warm:.2f}")
    print(f"{1e3 * cold:>12.2f} ms with a key that is unwrapped first")
    print(f"{1e3 * page:>12.2f} ms a page of the list")
    print(f"{booted:>12.2f} s from the start to the first signature")
    print(f"{memory_kib / 1024:>12.0f} MiB of memory, the worker")
    return 0 if objects <= MOST_OBJECTS else 1


def _fill(running: Server, number: int) -> Service:
    service = Service(running.url)
    with spinner("making keys") as show:
        while (left := number - len(service.kids)) > 0:
            service.make(min(AT_A_TIME, left))
            show(f"{len(service.kids):,} of {number:,} keys")
    return service


def _size(url: str) -> int:
    """Return the bytes of a database, all of it written."""
    engine = create_engine(url)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            pages = [connection.scalar(text(f"PRAGMA {name}")) for name in _PAGES]
            return int(pages[0]) * int(pages[1])
        return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)


_PAGES: Final = ("page_count", "page_size")


def _objects(state_dir: Path) -> int:
    """Return how many objects SoftHSM keeps in files, beside the token itself."""
    return sum(path.name != "token.object" for path in state_dir.rglob("*.object"))


if __name__ == "__main__":
    sys.exit(main())
