"""Many who make large keys, and one who signs."""

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from tests.faults.service import Service, protect

Body = dict[str, Any]
EC = {"kty": "EC", "crv": "P-256", "alg": "ES256"}


def times_of_signing(service: Service, key: Body, *, until: threading.Event) -> list[float]:
    """Sign on one connection, once and until the event; return the seconds that each took."""
    api, seconds = service.api, list[float]()
    while not (seconds and until.is_set()):
        started = time.monotonic()
        assert protect(api, key).status == 200
        seconds.append(time.monotonic() - started)
    return seconds


def flood(service: Service, request: Body, *, clients: int) -> list[float]:
    """Create from many clients at once, and sign meanwhile; return the times of signing."""
    key, over = service.create(**EC), threading.Event()
    with ThreadPoolExecutor(clients + 1) as threads:
        signing = threads.submit(times_of_signing, service, key, until=over)
        try:
            made = list(threads.map(lambda _: service.api.post("/keys", request), range(clients)))
        finally:  # else a failure would wait for who signs for ever
            over.set()
        assert {answer.status for answer in made} <= {200, 503}
        service.keys += [answer.body for answer in made if answer.status == 200]
        assert any(answer.status == 200 for answer in made)
        return signing.result()


def generated(bits: int) -> Body:
    return {"kty": "RSA", "bits": bits, "alg": "RS256"}


def imported(bits: int) -> Body:
    return RSAKey.generate_key(bits, private=True).as_dict(private=True) | {"alg": "RS256"}


kinds = pytest.mark.parametrize("made", [generated, imported])


@kinds
def test_while_pairs_are_made_keys_are_used(pair, made):
    assert flood(pair, made(2048), clients=2)


@pytest.mark.long
@kinds
def test_a_flood_of_large_pairs_does_not_starve_signing(pair, capsys, made):
    stop = threading.Event()
    threading.Timer(10, stop.set).start()
    quiet = times_of_signing(pair, pair.create(**EC), until=stop)
    flooded = flood(pair, made(4096), clients=50)
    p99 = [statistics.quantiles(each, n=100)[98] for each in (quiet, flooded)]
    with capsys.disabled():
        print(
            f"\nES256 p99: quiet {1000 * p99[0]:.1f} ms, during 50 RSA-4096 {made.__name__} "
            f"{1000 * p99[1]:.1f} ms, ratio {p99[1] / p99[0]:.1f}"
        )
