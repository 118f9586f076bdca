"""Use keys from many clients while everything that can fail does, at random.

    python -m scripts.trials.soak --minutes 15 --seed 7

Serves a throw-away token whose workers suffer errors, delays, corrupted results, hangs and
outages, and are killed, reloaded and recycled; whose registry is locked; and beside whose callers
others send a byte a second or try forged tokens. Afterwards every kid that was returned has to
work, and ``jose-hsm reconcile`` has to leave nothing. Prints a table; exits with 1 if anything that
must be 0 is not, if memory, file descriptors or threads of the workers grew beyond their bounds, or
if good callers waited beside bad ones for more than ``report.MOST_TIMES`` as long as in peace.
"""

import argparse
import collections
import random
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import requests

from scripts.throwaway import make_token
from scripts.trials.soak import report
from scripts.trials.soak.ends import Ends
from scripts.trials.soak.forgers import Forgers
from scripts.trials.soak.latencies import Latencies
from scripts.trials.soak.size import size_of
from scripts.trials.soak.table import Table
from scripts.trials.soak.trouble import Trouble
from scripts.trials.soak.victim import Victim
from tests.faults.service import Service, serving
from tests.shared.callers import token_for
from tests.shared.issuer import Issuer

WORKERS: Final = 2
CLIENTS: Final = 8
REQUESTS_OF_A_WORKER: Final = 5000
WARM_UP_SECONDS: Final = 8
FIGURES_SECONDS: Final = 3  # they are shared every second
CALL_SECONDS: Final = 4
FAILURES_A_MINUTE: Final = 10


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    random.seed(options.seed)
    issuer, table = Issuer(), Table()
    with tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory:
        settings = _settings(Path(directory), issuer)
        with serving(Path(directory), workers=WORKERS, settings=settings) as service:
            service.bearer = token_for(settings, "token:soak")
            table.show("seed", options.seed)
            _soak(service, issuer, 60 * options.minutes, table)
    print("BAD: see the lines marked" if table.is_bad else "OK: nothing wrong, nothing lost")
    return int(table.is_bad)


def _settings(directory: Path, issuer: Issuer) -> dict[str, str]:
    """Make a token; return the settings of a service that knows API tokens and JWTs."""
    jwks = directory / "jwks.json"
    jwks.write_text(issuer.jwks)
    return {
        **make_token(directory / "state"),
        **issuer.settings(jwks),
        "JOSE_HSM_AUTH_FAILURES": str(FAILURES_A_MINUTE),
        "JOSE_HSM_CALL_SECONDS": str(CALL_SECONDS),
        "GUNICORN_CMD_ARGS": f"--max-requests {REQUESTS_OF_A_WORKER} --max-requests-jitter 500",
    }


def _soak(service: Service, issuer: Issuer, seconds: float, table: Table) -> None:
    service.wait_until_ready()
    shared: collections.deque[dict[str, Any]] = collections.deque(maxlen=40)
    latencies, bearer = Latencies(), str(service.bearer)
    clients = [
        Victim(service.url, shared, bearer=bearer, latencies=latencies) for _ in range(CLIENTS)
    ]
    forgers = Forgers(service.url, issuer, bearer)
    ends, trouble = Ends(service), Trouble(service, forgers, latencies)
    deadline = time.monotonic() + WARM_UP_SECONDS + seconds
    with ThreadPoolExecutor(CLIENTS + 1) as pool, closing(ends):
        watching = pool.submit(ends.watch)
        lives = [pool.submit(client.live, deadline) for client in clients]
        time.sleep(WARM_UP_SECONDS)
        before = size_of(service)
        table.show_counts("sessions, warm", _sessions(service))
        trouble.make(deadline)
        wait(lives)
        service.wait_until_ready()
        after = size_of(service)
        time.sleep(FIGURES_SECONDS)
        sessions = _sessions(service)
    for done in (watching, *lives):
        done.result()
    table.show_counts("sessions, at the end", sessions)
    table.show_zero("of them never given back", sessions.get("lent", 0))
    report.show_answers(table, clients, ends)
    report.show_forgeries(table, forgers)
    report.show_latencies(table, latencies)
    report.show_keys(table, service, clients)
    report.show_workers(table, service, ends, trouble, before, after)


def _sessions(service: Service) -> dict[str, int]:
    """Return how many sessions of the live workers are lent, and how many idle."""
    text = requests.get(f"{service.url}/metrics", timeout=10).text
    found = re.findall(r'^jose_hsm_sessions\{state="(\w+)"\} ([0-9.]+)$', text, re.MULTILINE)
    return {state: round(float(number)) for state, number in found}


if __name__ == "__main__":
    sys.exit(main())
