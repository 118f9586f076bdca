"""Use keys of all that one make of token offers, through the death of a worker and a restart.

    python -m scripts.trials.token_load --token nss --seconds 60 --clients 16

Serves a throw-away token of that make with two workers, or with one where it wants that. Clients
create, use and destroy keys of every algorithm and curve but those that ``scripts/tokens`` says the
token lacks; a worker is killed after a quarter of the time, and the service is restarted after a
half. Afterwards every kid that was returned has to work, one of each algorithm among them. Prints a
table; exits with 1 if anything that must be 0 is not.
"""

import argparse
import collections
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import hsm
from scripts.throwaway import Server, make_token, server
from scripts.tokens import TOKENS
from scripts.tokens.make import SoftwareToken
from scripts.trials.soak.latencies import Latencies
from scripts.trials.soak.table import Table
from scripts.trials.soak.victim import Victim
from scripts.workers import kill, workers_of
from tests.faults.service import use
from tests.shared.api import Api
from tests.shared.bodies import body_of, crvs_of
from tests.shared.forks import completed
from tests.shared.waiting import REPLACEMENT, START, until

UNAVAILABLE: Final = HTTPStatus.SERVICE_UNAVAILABLE

Key = dict[str, Any]


def kinds_of(token: str) -> list[Mapping[str, str]]:
    """Return what creates a key of each algorithm and curve that the token does not lack."""
    lacks = TOKENS[token].lacks
    offered = (name for name, row in hsm.ALGORITHMS.items() if not row.is_opt_in | (name in lacks))
    return [
        body_of(name, crv)
        for name in offered
        for crv in (crvs_of(name) or (None,))
        if crv not in lacks
    ]


class Load:
    """What clients do on one token, from one start of its service to the next."""

    def __init__(
        self,
        settings: Mapping[str, str],
        kinds: Sequence[Mapping[str, str]],
        *,
        clients: int,
        token: SoftwareToken,
    ) -> None:
        self._settings = settings
        self._workers = token.workers
        self._most_used_keys = token.most_used_keys
        self._kinds = kinds
        self._clients = clients
        self._shared: collections.deque[Key] = collections.deque()
        self.victims: list[Victim] = []
        self.kills = 0

    def run(self, seconds: float, *, kills: bool) -> None:
        """Serve for so long; if it ``kills``, a worker dies when half of that is over."""
        with (
            server(self._settings, workers=self._workers) as running,
            self._calling(running, seconds),
        ):
            if kills:
                time.sleep(seconds / 2)
                self.kills += kill(random.choice(workers_of(running.process.pid)))
                until(
                    lambda: len(workers_of(running.process.pid)) == self._workers,
                    within=REPLACEMENT,
                )

    @contextmanager
    def _calling(self, running: Server, seconds: float) -> Iterator[None]:
        """Have the clients live beside the ``with`` block."""
        self._make_first(running)
        victims = [
            Victim(running.url, self._shared, latencies=Latencies(), kinds=self._kinds)
            for _ in range(self._clients)
        ]
        self.victims += victims
        deadline = time.monotonic() + seconds
        with ThreadPoolExecutor(self._clients) as pool:
            lives = [pool.submit(victim.live, deadline) for victim in victims]
            yield
        for done in lives:
            done.result()

    def _make_first(self, running: Server) -> None:
        """Make a key of each kind that all use, unless the service before has."""
        api = Api.over_http(running.url)
        self._shared.extend(api.create(**kind) for kind in self._kinds if not self.victims)

    def lost(self) -> int:
        """Return how many kids that were returned, and not destroyed, do not work any more."""
        living = [key for victim in self.victims for key in victim.living.values()]
        living += [key for key in self._shared if key not in living]
        most = self._most_used_keys or max(1, len(living))
        firsts = range(0, len(living), most)
        return sum(self._lost(living[first : first + most]) for first in firsts)

    def _lost(self, keys: Iterable[Key]) -> int:
        """Return how many of ``keys`` do not work after a start."""
        with server(self._settings, workers=self._workers) as running:
            api = Api.over_http(running.url)
            return sum(_outcome(api, key) != HTTPStatus.OK for key in keys)


def _outcome(api: Api, key: Key) -> int:
    """Use a key; return the status, asking again while the token is being opened."""
    return until(lambda: (status := use(api, key)) != UNAVAILABLE and status, within=START)


def _diagnosis(settings: Mapping[str, str]) -> str:
    """Return how many steps of the doctor came to what."""
    return completed("jose-hsm", ["doctor"], settings, proves=True).stdout.splitlines()[-1]


def _show(table: Table, load: Load, kinds: Sequence[Mapping[str, str]]) -> None:
    victims = load.victims
    used = sum((victim.used for victim in victims), collections.Counter[str]())
    wrong = collections.Counter(line for victim in victims for line in victim.wrong)
    codes = sum((victim.codes for victim in victims), collections.Counter[str]())
    table.show_counts("made and checked, by algorithm", used)
    table.show("algorithms and curves, and how many were used", f"{len(kinds)} {len(used)}")
    table.show_counts("refusals by status and code", codes)
    table.show("requests cut off", sum(len(victim.cut_off) for victim in victims))
    table.show_zero("wrong answers", wrong.total())
    for line, number in wrong.most_common(10):
        print(f"  {number} of {line}")
    table.show_zero("false 404", sum(len(victim.false_404) for victim in victims))
    table.show_zero("workers not killed", 1 - load.kills)


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--token", choices=TOKENS, default="softhsm")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    if missing := TOKENS[options.token].needs():
        sys.exit(f"{options.token} needs: {missing}")
    table, kinds = Table(), kinds_of(options.token)
    with tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory:
        settings = make_token(Path(directory) / "state", options.token)
        table.show("doctor", _diagnosis(settings))
        load = Load(settings, kinds, clients=options.clients, token=TOKENS[options.token])
        load.run(options.seconds / 2, kills=True)
        load.run(options.seconds / 2, kills=False)
        _show(table, load, kinds)
        table.show_zero("kids lost", load.lost())
    print("BAD: see the lines marked" if table.is_bad else "OK: nothing wrong, nothing lost")
    return int(table.is_bad)


if __name__ == "__main__":
    sys.exit(main())
