"""Prove to a server that a token is used by whom it was given to (DPoP, RFC 9449).

Install requests and PyJWT (pip). Run: python dpop.py [http://127.0.0.1:8000]
"""

import base64
import json
import sys
import time
import uuid
from typing import Any

import jwt
import requests

SERVICE = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
SESSION = requests.Session()
# Where the service asks who you are: SESSION.headers["Authorization"] = "Bearer …"


def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return what the service answers; raise ``HTTPError`` if it refuses."""
    response = SESSION.post(f"{SERVICE}/v1/crypto{path}", json=body, timeout=30)
    response.raise_for_status()
    return dict(response.json())


def b64u(octets: bytes) -> str:
    """Return base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


key = post("/keys", {"kty": "EC", "crv": "P-256", "alg": "ES256"})

# A proof holds the public key itself and no kid: the service fills it in from the key that signs.
claims = {
    "jti": str(uuid.uuid4()),
    "htm": "POST",
    "htu": "https://server.example.com/token",
    "iat": int(time.time()),
}
proof = post(
    "/sign",
    {
        "kid": key["kid"],
        "alg": "ES256",
        "data": b64u(json.dumps(claims).encode()),
        "header": {"typ": "dpop+jwt", "jwk": True, "kid": None},
        "serialization": "compact",
    },
)["jws"]
print("DPoP:", proof)

# What the server does with it.
header = jwt.get_unverified_header(proof)
if header["typ"] != "dpop+jwt":
    raise ValueError("not a proof")
public = jwt.PyJWK(header["jwk"], algorithm="ES256")
proven = jwt.decode(proof, public, algorithms=["ES256"])
print("proven:", proven["htm"], proven["htu"])
