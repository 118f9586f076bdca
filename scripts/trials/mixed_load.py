"""Create, use and destroy keys from many clients at once, and count everything that goes wrong.

    python -m scripts.trials.mixed_load --seconds 60 --clients 16

Serves a throw-away token with two workers. Wrong are: a 5xx, a result that is not right, a 404 for
a key that lives, and any use of a key that was destroyed; not that too many RSA pairs are asked for
at a time. Exits with 1 if anything was wrong.
"""

import argparse
import base64
import collections
import random
import secrets
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import requests

from scripts.throwaway import service
from scripts.trials import uses

KEYS: Final[tuple[dict[str, str], ...]] = (
    {"kty": "oct", "alg": "A128GCM"},
    {"kty": "oct", "alg": "A256GCM"},
    {"kty": "oct", "alg": "HS256"},
    {"kty": "EC", "crv": "P-256", "alg": "ES256"},
    {"kty": "EC", "crv": "P-521", "alg": "ES512"},
    {"kty": "OKP", "alg": "EdDSA"},
    {"kty": "RSA", "alg": "PS256"},
    {"kty": "RSA", "alg": "RSA-OAEP"},
    {"kty": "RSA", "alg": "RSA-OAEP-256"},
    {"kty": "oct", "alg": "A256KW"},
    {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES"},
    {"kty": "OKP", "crv": "X25519", "alg": "ECDH-ES+A128KW"},
)
USES_OF_A_KEY: Final = 6
KEPT_ONE_IN: Final = 10
RECONNECTED_ONE_IN: Final = 3


def b64u(value: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def name_of(key: Mapping[str, str]) -> str:
    """Return what a key is for, and its curve if it has one."""
    return f"{key['alg']} {key.get('crv', '')}".strip()


class Client:
    """One client, which changes its connection, and so its worker, now and then; notes answers."""

    def __init__(
        self,
        url: str,
        shared: "collections.deque[dict[str, Any]]",
        kinds: Sequence[Mapping[str, str]] = KEYS,
    ) -> None:
        self._url = f"{url}/v1/crypto"
        self._http = requests.Session()
        self._shared = shared
        self._kinds = kinds
        self.used: collections.Counter[str] = collections.Counter()
        self.answers: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []

    def live(self, deadline: float) -> None:
        """Make a key, use it and what others have made, and destroy it, until ``deadline``."""
        while time.monotonic() < deadline:
            self._turn()

    def _turn(self) -> None:
        key = self._create()
        if key is None:
            return
        keep = random.randrange(KEPT_ONE_IN) == 0
        for _ in range(USES_OF_A_KEY):
            self._use(key)
            if self._shared:
                self._use(random.choice(self._shared))
        if keep:
            self._shared.append(key)
        else:
            self._destroy(key["kid"])

    def _create(self) -> Any:
        return self._post("/keys", random.choice(self._kinds))

    def _use(self, key: dict[str, Any]) -> None:
        data = b64u(secrets.token_bytes(random.randrange(300)))
        made = self._post(*uses.protect(key, data))
        if made is None:
            return
        path, body, right = uses.check(key, data, made)
        answer = self._post(path, body)
        if answer == right:
            self.used[name_of(key)] += 1
        elif answer is not None:
            self.wrong.append(f"{path}: wrong answer with {name_of(key)}")

    def _destroy(self, kid: str) -> None:
        if self._note("DELETE", self._send("DELETE", f"/keys/{kid}"), 204):
            self._note("DELETE again", self._send("DELETE", f"/keys/{kid}"), 404)

    def _post(self, path: str, body: Any) -> Any:
        if random.randrange(RECONNECTED_ONE_IN) == 0:
            self._http.close()
        response = self._send("POST", path, body)
        return response.json() if self._note(path, response, 200) else None

    def _send(self, method: str, path: str, body: Any = None) -> requests.Response:
        return self._http.request(method, self._url + path, json=body, timeout=60)

    def _note(self, path: str, response: requests.Response, expected: int) -> bool:
        """Count the answer; tell whether it is the expected one."""
        self.answers[f"{path} {response.status_code}"] += 1
        return self._judge(path, response, expected)

    def _judge(self, path: str, response: requests.Response, expected: int) -> bool:
        is_right = response.status_code == expected
        if not is_right and "too many keys are being generated" not in response.text:
            self.wrong.append(f"{path}: {response.status_code} {response.text.strip()}")
        return is_right


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    shared: collections.deque[dict[str, Any]] = collections.deque(maxlen=40)
    with service() as server:
        clients = [Client(server.url, shared) for _ in range(options.clients)]
        deadline = time.monotonic() + options.seconds
        threads = [threading.Thread(target=client.live, args=(deadline,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    answers = sum((client.answers for client in clients), collections.Counter[str]())
    wrong = [line for client in clients for line in client.wrong]
    for name, count in sorted(answers.items()):
        print(f"{name:<20} {count:>8}")
    print(f"{'wrong':<20} {len(wrong):>8}")
    for line, count in collections.Counter(wrong).most_common(20):
        print(f"  {count:>5} of {line}")
    print("WRONG" if wrong else "OK: every answer was right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
