"""Encrypt to a key of the service without asking it; then have the service decrypt.

Install requests and joserfc (pip). Run: python decrypt.py [http://127.0.0.1:8000]
"""

import base64
import sys
from typing import Any

import requests
from joserfc import jwe
from joserfc.jwk import KeySet

SERVICE = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
SESSION = requests.Session()
# Where the service asks who you are: SESSION.headers["Authorization"] = "Bearer …"


def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return what the service answers; raise ``HTTPError`` if it refuses."""
    response = SESSION.post(f"{SERVICE}/v1/crypto{path}", json=body, timeout=30)
    response.raise_for_status()
    return dict(response.json())


# The receiver makes a key once. Its private half never leaves the token.
key = post("/keys", {"kty": "RSA", "bits": 2048, "alg": "RSA-OAEP-256"})
post(f"/keys/{key['kid']}/tags", {"tags": ["jwks"]})  # publishes the other half

# The sender needs the public half alone, by its name in the published set.
published = SESSION.get(f"{SERVICE}/.well-known/jwks.json", timeout=30).json()
header = {"alg": "RSA-OAEP-256", "enc": "A256GCM", "kid": key["kid_public"]}
message = jwe.encrypt_compact(
    header,
    b"for your eyes only",
    KeySet.import_key_set(published),
    algorithms=["RSA-OAEP-256", "A256GCM"],
)
print("encrypted:", message)

# The receiver hands on the message as it came: its header says which key.
data = post("/decrypt", {"jwe": message})["data"]
print("decrypted:", base64.urlsafe_b64decode(data + "==").decode())

SESSION.delete(f"{SERVICE}/v1/crypto/keys/{key['kid']}", timeout=30)
