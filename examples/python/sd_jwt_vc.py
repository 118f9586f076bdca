"""Issue an SD-JWT VC and present part of it, bound to the holder's key (SD-JWT, RFC 9901).

Install requests and PyJWT (pip). Run: python sd_jwt_vc.py [http://127.0.0.1:8000]
"""

import base64
import hashlib
import json
import secrets
import sys
import time
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


def sign(kid: str, typ: str, claims: dict[str, Any]) -> str:
    """Return a JWT of ``claims``; which kind it is, its header says."""
    body = {
        "kid": kid,
        "alg": "ES256",
        "data": b64u(json.dumps(claims).encode()),
        "header": {"typ": typ},
        "serialization": "compact",
    }
    return str(post("/sign", body)["jws"])


def digest_of(text: str) -> str:
    """Return the digest by which one part names another."""
    return b64u(hashlib.sha256(text.encode()).digest())


issuer, holder = (post("/keys", {"kty": "EC", "crv": "P-256", "alg": "ES256"}) for _ in range(2))

# The issuer signs digests of what may be disclosed, and whose the credential is.
disclosures = {
    name: b64u(json.dumps([b64u(secrets.token_bytes(16)), name, value]).encode())
    for name, value in {"given_name": "Alice", "birthdate": "1990-01-31"}.items()
}
entry = SESSION.get(f"{SERVICE}/v1/crypto/keys/{holder['kid']}", timeout=30).json()["jwk"]
credential = sign(
    issuer["kid"],
    "dc+sd-jwt",
    {
        "iss": "https://issuer.example.com",
        "vct": "https://credentials.example.com/identity",
        "_sd_alg": "sha-256",
        "_sd": sorted(map(digest_of, disclosures.values())),
        "cnf": {"jwk": {name: entry[name] for name in ("kty", "crv", "x", "y")}},
    },
)

# The holder discloses one claim, and signs what is presented to whom.
presented = f"{credential}~{disclosures['given_name']}~"
binding = {
    "iat": int(time.time()),
    "aud": "https://verifier.example.com",
    "nonce": "1234567890",
    "sd_hash": digest_of(presented),
}
presentation = presented + sign(holder["kid"], "kb+jwt", binding)
print("presentation:", presentation)

# What the verifier does with it.
token, *disclosed, bound = presentation.split("~")
keys = jwt.PyJWKClient(f"{SERVICE}/.well-known/jwks.json")
claims = jwt.decode(token, keys.get_signing_key_from_jwt(token), algorithms=["ES256"])
public = jwt.PyJWK(claims["cnf"]["jwk"], algorithm="ES256")
seen = jwt.decode(bound, public, algorithms=["ES256"], audience="https://verifier.example.com")
if seen["sd_hash"] != digest_of(presentation.rpartition("~")[0] + "~"):
    raise ValueError("the binding is to something else")
for one in disclosed:
    if digest_of(one) not in claims["_sd"]:
        raise ValueError("the issuer has not signed this")
    _salt, name, value = json.loads(base64.urlsafe_b64decode(one + "=="))
    print(f"verified: {name} is {value}")
