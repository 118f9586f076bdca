"""Verify with PyJWT a JWT that the service has signed, by its published keys.

Install PyJWT[crypto] (pip). Run: python verify_pyjwt.py JWT [http://127.0.0.1:8000]
"""

import sys

import jwt

TOKEN, SERVICE = [*sys.argv[1:], "http://127.0.0.1:8000"][:2]

# It keeps the set for five minutes, and fetches it anew for a kid that is not in it.
keys = jwt.PyJWKClient(f"{SERVICE}/.well-known/jwks.json")

# Name the algorithms that you expect: never those that the token names.
claims = jwt.decode(
    TOKEN,
    keys.get_signing_key_from_jwt(TOKEN),
    algorithms=["ES256"],
    issuer="https://issuer.example",
    options={"require": ["exp", "iss"]},
)
print("verified:", claims["sub"])
