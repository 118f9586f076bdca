"""Authenticate a client with a certificate: the assertion names it by its thumbprint.

Install requests, PyJWT and cryptography (pip). Run: python client_assertion.py [http://127.0.0.1:8000]
"""

import base64
import datetime
import json
import sys
import time
import uuid
from typing import Any

import jwt
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

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


key = post("/keys", {"kty": "RSA", "alg": "PS256"})
text = post(f"/keys/{key['kid']}/csr", {"subject": {"CN": "client.example.com"}})["csr"]

# An authority makes the certificate; here one that lives for a moment.
authority = ec.generate_private_key(ec.SECP256R1())
request = x509.load_pem_x509_csr(text.encode())
now = datetime.datetime.now(datetime.UTC)
certificate = (
    x509.CertificateBuilder()
    .subject_name(request.subject)
    .issuer_name(x509.Name.from_rfc4514_string("CN=authority"))
    .public_key(request.public_key())
    .serial_number(x509.random_serial_number())
    .not_valid_before(now)
    .not_valid_after(now + datetime.timedelta(days=90))
    .sign(authority, SHA256())
)
chain = {"chain": certificate.public_bytes(Encoding.PEM).decode()}
path = f"{SERVICE}/v1/crypto/keys/{key['kid']}/certificate"
SESSION.put(path, json=chain, timeout=30).raise_for_status()

claims = {
    "iss": "client",
    "sub": "client",
    "aud": "https://login.example.com/token",
    "jti": str(uuid.uuid4()),
    "exp": int(time.time()) + 300,
}
assertion = post(
    "/sign",
    {
        "kid": key["kid"],
        "alg": "PS256",
        "data": b64u(json.dumps(claims).encode()),
        "typ": "JWT",
        "header": {"kid": None, "x5t#S256": True},
        "serialization": "compact",
    },
)["jws"]
print("client_assertion:", assertion)

# What the server does with it: it knows the certificate by its thumbprint.
known = {b64u(certificate.fingerprint(SHA256())): certificate.public_key()}
public: Any = known[jwt.get_unverified_header(assertion)["x5t#S256"]]
seen = jwt.decode(assertion, public, algorithms=["PS256"], audience=claims["aud"])
print("verified:", seen["sub"])
