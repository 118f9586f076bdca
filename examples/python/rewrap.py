"""Rewrap 100 messages to a new key, and retire the old one; nobody sees the plaintexts meanwhile.

Install requests (pip). Run: python rewrap.py [http://127.0.0.1:8000]
"""

import base64
import sys
from typing import Any

import requests

SERVICE = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
SESSION = requests.Session()
# Where the service asks who you are: SESSION.headers["Authorization"] = "Bearer …"
# The caller needs the right "decrypt" on the old key and "encrypt" on the new one.


def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return what the service answers; raise ``HTTPError`` if it refuses."""
    response = SESSION.post(f"{SERVICE}/v1/crypto{path}", json=body, timeout=30)
    response.raise_for_status()
    return dict(response.json())


def b64u(octets: bytes) -> str:
    """Return base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


old = post("/keys", {"kty": "oct", "alg": "A256KW"})["kid"]

# General serialization protects nothing that names the key, so that it can be replaced.
messages = [
    post(
        "/encrypt",
        {
            "serialization": "general",
            "recipients": [{"kid": old, "alg": "A256KW"}],
            "enc": "A256GCM",
            "data": b64u(f"record {number}".encode()),
        },
    )
    for number in range(100)
]

# The new key may be of another kind. What the messages hold stays as it is, byte for byte.
new = {"kid": post("/keys", {"kty": "RSA", "alg": "RSA-OAEP"})["kid"], "alg": "RSA-OAEP"}
rewrapped = [post("/rewrap", message | {"to": new}) for message in messages]
same = sum(
    one["ciphertext"] == other["ciphertext"] for one, other in zip(messages, rewrapped, strict=True)
)
print("with the same ciphertext:", same)

SESSION.delete(f"{SERVICE}/v1/crypto/keys/{old}", timeout=30).raise_for_status()
last = post("/decrypt", rewrapped[-1])["data"]
print("decrypted:", base64.urlsafe_b64decode(last + "=" * (-len(last) % 4)).decode())
