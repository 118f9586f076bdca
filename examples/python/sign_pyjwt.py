"""Sign with PyJWT as ever, with a key that stays in the token: an algorithm that asks the service.

Install requests and PyJWT (pip). Run: python sign_pyjwt.py [http://127.0.0.1:8000]
"""

import base64
import json
import sys
import time
from typing import Any, NoReturn

import jwt
import requests
from jwt.algorithms import Algorithm

SERVICE = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
SESSION = requests.Session()
# Where the service asks who you are: SESSION.headers["Authorization"] = "Bearer …"


def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return what the service answers; raise ``HTTPError`` if it refuses."""
    response = SESSION.post(f"{SERVICE}/v1/crypto{path}", json=body, timeout=30)
    response.raise_for_status()
    return dict(response.json())


class Remote(Algorithm):
    """Signs with the key of the service that is named as the key."""

    def __init__(self, alg: str) -> None:
        self.alg = alg

    def prepare_key(self, key: str) -> str:
        """Return ``key``, a kid."""
        return key

    def sign(self, msg: bytes, key: str) -> bytes:
        """Return the signature over ``msg``, the JWS Signing Input."""
        protected, _, data = msg.decode().partition(".")
        # The header is PyJWT's. The service sees to it that no other key is named in it.
        made = post("/sign", {"kid": key, "alg": self.alg, "data": data, "protected": protected})
        return base64.urlsafe_b64decode(made["signature"] + "==")

    def verify(self, *_: Any) -> NoReturn:
        """Refuse: that needs no service, see verify_pyjwt.py."""
        raise NotImplementedError

    to_jwk = from_jwk = verify


key = post("/keys", {"kty": "EC", "crv": "P-256", "alg": "ES256"})

jws = jwt.PyJWS(algorithms=[])
jws.register_algorithm("ES256", Remote("ES256"))
claims = {"iss": "https://issuer.example", "sub": "alice", "exp": int(time.time()) + 300}
print(
    jws.encode(
        json.dumps(claims).encode(),
        key["kid"],
        algorithm="ES256",
        headers={"kid": key["kid_public"]},
    )
)
