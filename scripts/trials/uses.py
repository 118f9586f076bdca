"""What a key of any kind is for: the request that protects data, and the one that checks it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import hsm

Body = Mapping[str, Any]


class Use(NamedTuple):
    """A request: its path below the API and its body."""

    path: str
    body: Body


class Check(NamedTuple):
    """A request and its only right answer."""

    path: str
    body: Body
    right: Body


def protect(key: Body, data: str) -> Use:
    """Encrypt, sign or authenticate ``data`` (base64url) with a key as its creation told it."""
    alg, named = key["alg"], {"kid": key["kid"], "alg": key["alg"], "data": data}
    if alg in hsm.MACS:
        return Use("/mac", named)
    if alg in hsm.KEY_MANAGEMENTS:
        return Use("/encrypt", named | {"enc": "A256GCM"})
    if alg in hsm.CONTENT_ENCRYPTIONS:
        return Use("/encrypt", named | {"alg": hsm.DIRECT, "enc": alg})
    return Use("/sign", named)


def check(key: Body, data: str, made: Body) -> Check:
    """Decrypt or verify what ``protect`` has made."""
    kid = key["kid"]
    if "mac" in made:
        body = {"kid": kid, "alg": key["alg"], "data": data, "mac": made["mac"]}
        return Check("/mac", body, {"kid": kid, "valid": True})
    if "ciphertext" in made:
        return Check("/decrypt", made, {"kid": kid, "data": data})
    public = key.get("kid_public") or kid
    return Check("/verify", {**made, "data": data}, {"kid": public, "valid": True})
