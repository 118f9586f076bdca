"""Compare one warm ``dir`` encryption with few and with many keys on the token.

    python -m scripts.trials.warm_cost --few 10 --many 2000 --requests 1000

Two services with one worker each run side by side, and requests to them alternate, so that what
else the machine does hits both alike. Exits with 1 if the medians differ by more than a tenth.
"""

import argparse
import base64
import contextlib
import statistics
import sys
import time
from typing import Final

import requests

from scripts.throwaway import service

ALLOWED_RATIO: Final = 1.1
KEY: Final = {"kty": "oct", "alg": "A256GCM"}
DATA: Final = base64.urlsafe_b64encode(b"x" * 66).decode("ascii")


class Warm:
    """A service with so many keys, all of them used once, and the times of its encryptions."""

    def __init__(self, url: str, keys: int) -> None:
        self._url = f"{url}/v1/crypto"
        self._http = requests.Session()
        self._kids = [self._post("/keys", KEY)["kid"] for _ in range(keys)]
        self.seconds: list[float] = []

    def encrypt(self, index: int) -> None:
        """Encrypt once with one of the keys, and note how long it took."""
        kid = self._kids[index % len(self._kids)]
        body = {"kid": kid, "alg": "dir", "enc": KEY["alg"], "data": DATA}
        started = time.perf_counter()
        self._post("/encrypt", body)
        self.seconds.append(time.perf_counter() - started)

    def _post(self, path: str, body: dict[str, str]) -> dict[str, str]:
        response = self._http.post(self._url + path, json=body, timeout=60)
        response.raise_for_status()
        answer: dict[str, str] = response.json()
        return answer


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--many", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        few, many = (
            Warm(stack.enter_context(service(workers=1)).url, keys)
            for keys in (options.few, options.many)
        )
        for index in range(options.requests):
            few.encrypt(index)
            many.encrypt(index)
    medians = [statistics.median(warm.seconds) for warm in (few, many)]
    ratio = medians[1] / medians[0]
    print(f"{options.few:>6} keys: {1e6 * medians[0]:7.0f} µs")
    print(f"{options.many:>6} keys: {1e6 * medians[1]:7.0f} µs")
    print(f"       ratio: {ratio:7.3f} (at most {ALLOWED_RATIO})")
    return 0 if ratio <= ALLOWED_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
