"""Sign a JWT and encrypt it to a key of somebody else's, who alone reads it (RFC 7519 §5.2).

Install requests and joserfc (pip). Run: python nested_jwt.py [http://127.0.0.1:8000]
"""

import base64
import json
import sys
from typing import Any

import requests
from joserfc import jwe, jwt
from joserfc.jwk import ECKey, KeySet

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

# The recipient has a pair of his own, of which the sender knows the public half.
recipient = ECKey.generate_key("P-256", {"kid": "theirs", "use": "enc"})

signed = post(
    "/sign",
    {
        "kid": key["kid"],
        "alg": "ES256",
        "data": b64u(json.dumps({"sub": "alice"}).encode()),
        "typ": "JWT",
        "serialization": "compact",
    },
)["jws"]
nested = post(
    "/encrypt",
    {
        "jwk": recipient.as_dict(private=False),
        "alg": "ECDH-ES+A256KW",
        "enc": "A256GCM",
        "data": b64u(signed.encode()),
        "typ": "JWT",
        "cty": "JWT",
        "serialization": "compact",
    },
)["jwe"]
print("nested:", nested)

# What the recipient does with it.
opened = jwe.decrypt_compact(nested, recipient, algorithms=["ECDH-ES+A256KW", "A256GCM"])
inner = (opened.plaintext or b"").decode()
published = SESSION.get(f"{SERVICE}/.well-known/jwks.json", timeout=30).json()
token = jwt.decode(inner, KeySet.import_key_set(published), algorithms=["ES256"])
print("verified:", token.claims["sub"])
