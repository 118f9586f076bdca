"""Sign a file of any size: it is hashed here, and its digest alone goes to the service.

Install requests and cryptography (pip). Run: python sign_file.py [http://127.0.0.1:8000]
"""

import base64
import hashlib
import sys
import tempfile
from typing import Any

import requests
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

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


# RSA keys sign digests only if they were made for it; EC keys always do.
key = post("/keys", {"kty": "RSA", "alg": "RS256", "digest": True})

with tempfile.TemporaryFile() as file:  # in your case: open(path, "rb")
    for _ in range(256):
        file.write(bytes(2**20))
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").digest()
    size = file.tell()

# It takes the right sign_raw on the key, which the owner has.
body = {"alg": "RS256", "digest": b64u(digest)}
signature = base64.urlsafe_b64decode(post(f"/keys/{key['kid']}/sign", body)["signature"] + "==")

# Whoever has the file verifies: openssl dgst -sha256 -verify key.pem -signature signature file
pem = SESSION.get(f"{SERVICE}/v1/crypto/keys/{key['kid']}/public.pem", timeout=30).content
public = load_pem_public_key(pem)
if not isinstance(public, RSAPublicKey):
    raise TypeError("not an RSA key")
public.verify(signature, digest, PKCS1v15(), Prehashed(SHA256()))
print("verified:", size, "bytes")
