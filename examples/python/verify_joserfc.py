"""Verify with joserfc a JWT that the service has signed, by its published keys.

Install requests and joserfc (pip). Run: python verify_joserfc.py JWT [http://127.0.0.1:8000]
"""

import sys

import requests
from joserfc import jwt
from joserfc.jwk import KeySet

TOKEN, SERVICE = [*sys.argv[1:], "http://127.0.0.1:8000"][:2]

# Keep the set for as long as its Cache-Control says, and fetch it anew for a kid that is not in it.
response = requests.get(f"{SERVICE}/.well-known/jwks.json", timeout=30)
response.raise_for_status()

# Name the algorithms that you expect: never those that the token names.
token = jwt.decode(TOKEN, KeySet.import_key_set(response.json()), algorithms=["ES256"])
# A good signature says who wrote the claims. Whether they hold is another question.
jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": "https://issuer.example"}, exp={"essential": True}
).validate(token.claims)
print("verified:", token.claims["sub"])
