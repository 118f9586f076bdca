"""Ask for an account as ACME has it (RFC 8555 §7.3): nonce and url are in the signed header.

Install requests and joserfc (pip). Run: python acme_request.py [http://127.0.0.1:8000]
"""

import base64
import json
import sys
from typing import Any

import requests
from joserfc import jws
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

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

# A whole header is signed as it is. The service looks whether its jwk is that of the key.
entry = SESSION.get(f"{SERVICE}/v1/crypto/keys/{key['kid']}", timeout=30).json()["jwk"]
jwk = {name: entry[name] for name in ("kty", "crv", "x", "y")}
header = {
    "alg": "ES256",
    "jwk": jwk,
    "nonce": "6S8IqOGY7eL2lsGoTZYifg",
    "url": "https://acme.example.com/acme/new-account",
}
payload = b64u(json.dumps({"termsOfServiceAgreed": True}).encode())
body = {"kid": key["kid"], "protected": b64u(json.dumps(header).encode()), "data": payload}
request = {"payload": payload, **post("/sign", body)}
print("request:", json.dumps(request))

# What the server does with it.
registry = JWSRegistry(algorithms=["ES256"], strict_check_header=False)
seen = jws.deserialize_json(request, ECKey.import_key(jwk), registry=registry)
print("verified:", seen.headers()["url"])
