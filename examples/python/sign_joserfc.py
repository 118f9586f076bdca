"""Sign with joserfc as ever, with a key that stays in the token.

Install requests and joserfc (pip). Run: python sign_joserfc.py [http://127.0.0.1:8000]
"""

import sys
import time

import requests
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from service_key import private_key  # the file beside this one

SERVICE = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
SESSION = requests.Session()
# Where the service asks who you are: SESSION.headers["Authorization"] = "Bearer …"

body = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
response = SESSION.post(f"{SERVICE}/v1/crypto/keys", json=body, timeout=30)
response.raise_for_status()
made = response.json()

# joserfc would have the key write down its JWK with the private half: so it is given the JWK.
jwk = SESSION.get(f"{SERVICE}/v1/crypto/keys/{made['kid']}", timeout=30).json()["jwk"]
key = ECKey(private_key(made["kid"], SERVICE, SESSION), jwk)

# The header and the claims are joserfc's; the signature alone is made by the service.
claims = {"iss": "https://issuer.example", "sub": "alice", "exp": int(time.time()) + 300}
token = jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key)
print("signed:", token)

# Whoever gets it has the published keys.
published = SESSION.get(f"{SERVICE}/.well-known/jwks.json", timeout=30).json()
seen = jwt.decode(token, KeySet.import_key_set(published), algorithms=["ES256"])
print("verified:", seen.claims["sub"])
