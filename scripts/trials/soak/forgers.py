"""Callers with credentials that are forged, or never were any."""

import collections
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Final

import requests

from tests.shared.issuer import BAD, Issuer

FORGERS: Final = 4
PAUSE_SECONDS: Final = 0.05
"""So all together try many times as often as an address may fail (``JOSE_HSM_AUTH_FAILURES``)."""
_REFUSALS: Final = frozenset(
    {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
)


class Forgers:
    """Try to use a key of somebody whose API token is ``good``."""

    def __init__(self, url: str, issuer: Issuer, good: str) -> None:
        self._url = url
        self._forgeries: Sequence[Callable[[], str]] = [
            *(lambda bad=bad: bad(issuer) for bad in BAD.values()),
            lambda: good[:-1] + random.choice("ABCD"),
            good.swapcase,
            lambda: good[:-1],
        ]
        self._good = good
        self.answers: collections.Counter[str] = collections.Counter()
        self.admitted = 0

    def attack(self, seconds: float) -> None:
        """Go on for ``seconds``, from the address of the good callers."""
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(FORGERS) as pool:
            for done in [pool.submit(self._live, end) for _ in range(FORGERS)]:
                done.result()

    def _live(self, end: float) -> None:
        with requests.Session() as session:
            while time.monotonic() < end:
                self._try(session)
                time.sleep(PAUSE_SECONDS)

    def _try(self, session: requests.Session) -> None:
        forged = random.choice(self._forgeries)()
        if forged == self._good:
            return
        answer = session.get(
            f"{self._url}/v1/crypto/keys", headers={"Authorization": f"Bearer {forged}"}, timeout=60
        )
        self.answers[str(answer.status_code)] += 1
        self.admitted += answer.status_code not in _REFUSALS
