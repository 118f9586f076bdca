"""Many who make large keys, and one who signs."""

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.service import protect

EC = {"kty": "EC", "crv": "P-256", "alg": "ES256"}


def times_of_signing(service, key, *, until):
    """Sign on one connection until the event; return the seconds that each took."""
    api, seconds = service.api, []
    while not until.is_set():
        started = time.monotonic()
        assert protect(api, key).status == 200
        seconds.append(time.monotonic() - started)
    return seconds


def flood(service, *, pairs, bits):
    """Make ``pairs`` RSA pairs at once, and sign meanwhile; return the times of signing."""
    key, over = service.create(**EC), threading.Event()
    request = {"kty": "RSA", "bits": bits, "alg": "RS256"}
    with ThreadPoolExecutor(pairs + 1) as clients:
        signing = clients.submit(times_of_signing, service, key, until=over)
        made = list(clients.map(lambda _: service.api.post("/keys", request), range(pairs)))
        over.set()
        assert {answer.status for answer in made} <= {200, 503}
        service.keys += [answer.body for answer in made if answer.status == 200]
        assert any(answer.status == 200 for answer in made)
        return signing.result()


def test_while_pairs_are_made_keys_are_used(pair):
    assert flood(pair, pairs=2, bits=2048)


@pytest.mark.long
def test_a_flood_of_large_pairs_does_not_starve_signing(pair, capsys):
    stop = threading.Event()
    threading.Timer(10, stop.set).start()
    quiet = times_of_signing(pair, pair.create(**EC), until=stop)
    flooded = flood(pair, pairs=50, bits=4096)
    p99 = [statistics.quantiles(each, n=100)[98] for each in (quiet, flooded)]
    with capsys.disabled():
        print(
            f"\nES256 p99: quiet {1000 * p99[0]:.1f} ms, during 50 RSA-4096 {1000 * p99[1]:.1f} ms,"
            f" ratio {p99[1] / p99[0]:.1f}"
        )
