"""Compare how long the service takes to refuse bad padding and a bad tag.

    python -m scripts.trials.padding_oracle --requests 5000

Requests of both kinds alternate over live HTTP, alone or ``--together`` as requests of a batch.
Prints Welch's t over the medians of samples, for each algorithm; |t| < 4.5 shows no difference.
Also checks that all answers are the same.
"""

import argparse
import base64
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import requests

from scripts.throwaway import service

SAMPLE: Final = 50
THRESHOLD: Final = 4.5
ALGORITHMS: Final = ("RSA-OAEP", "RSA-OAEP-256", "RSA-OAEP-512", "RSA1_5")
ENC: Final = "A256GCM"


def welch_t(left: Sequence[float], right: Sequence[float]) -> float:
    """Return Welch's t statistic of two samples."""
    variance = statistics.variance(left) / len(left) + statistics.variance(right) / len(right)
    return (statistics.fmean(left) - statistics.fmean(right)) / math.sqrt(variance)


def sample_medians(seconds: Sequence[float]) -> list[float]:
    """Return the median of each whole sample; it forgives what the machine did meanwhile."""
    return [
        statistics.median(seconds[start : start + SAMPLE])
        for start in range(0, len(seconds) - SAMPLE + 1, SAMPLE)
    ]


def flipped(text: str) -> str:
    """Return base64url ``text`` with one bit of its last but one byte changed."""
    octets = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    octets[-2] ^= 1
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def compare(url: str, alg: str, *, count: int, together: int) -> float:
    """Return Welch's t for ``alg``; raise ``RuntimeError`` if the answers differ."""
    http = requests.Session()

    def post(path: str, body: Any) -> requests.Response:
        return http.post(f"{url}/v1/crypto{path}", json=body, timeout=60)

    kid = post("/keys", {"kty": "RSA", "alg": alg}).json()["kid"]
    jwe = post("/encrypt", {"kid": kid, "alg": alg, "enc": ENC, "data": "SGVsbG8"}).json()
    kinds: dict[str, Any] = {
        "bad padding": jwe | {"encrypted_key": flipped(jwe["encrypted_key"])},
        "bad tag": jwe | {"tag": flipped(jwe["tag"])},
    }
    path = "/decrypt"
    if together:
        path = "/batch"
        kinds = {
            kind: {"requests": [{"op": "decrypt", "body": body}] * together}
            for kind, body in kinds.items()
        }
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    answers = set()
    for index in range(count):
        for kind in sorted(kinds, reverse=bool(index % 2)):
            started = time.perf_counter()
            response = post(path, kinds[kind])
            seconds[kind].append(time.perf_counter() - started)
            answers.add((response.status_code, response.content))
    if len(answers) != 1:
        raise RuntimeError(f"the answers differ: {answers}")
    medians = {kind: sample_medians(times) for kind, times in seconds.items()}
    for kind, values in medians.items():
        print(f"{alg:<13} {kind:<12} {1e6 * statistics.median(values):8.1f} µs")
    return welch_t(*medians.values())


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--together", type=int, default=0)
    options = parser.parse_args()
    is_even = True
    with service(workers=1, settings={"JOSE_HSM_RSA1_5": "1"}) as server:
        for alg in ALGORITHMS:
            t = compare(server.url, alg, count=options.requests, together=options.together)
            is_even &= abs(t) < THRESHOLD
            print(json.dumps({"alg": alg, "t": round(t, 2), "threshold": THRESHOLD}))
    return 0 if is_even else 1


if __name__ == "__main__":
    sys.exit(main())
