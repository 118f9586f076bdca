"""Sign with PyJWT as ever, with a key that stays in the token.

Install requests and PyJWT[crypto] (pip). Run: python sign_pyjwt.py [http://127.0.0.1:8000]
"""

import sys
import time

import jwt
import requests
from service_key import private_key  # the file beside this one

SERVICE = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
SESSION = requests.Session()
# Where the service asks who you are: SESSION.headers["Authorization"] = "Bearer …"

body = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
response = SESSION.post(f"{SERVICE}/v1/crypto/keys", json=body, timeout=30)
response.raise_for_status()
made = response.json()

# The header and the claims are PyJWT's; the signature alone is made by the service.
claims = {"iss": "https://issuer.example", "sub": "alice", "exp": int(time.time()) + 300}
key = private_key(made["kid"], SERVICE, SESSION)
print(jwt.encode(claims, key, algorithm="ES256", headers={"kid": made["kid_public"]}))
