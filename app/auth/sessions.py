"""Sessions of the admin page: a cookie that stands for an API token, for an hour.

It holds the id of the token and an end, signed. Whose the token is, which roles it gives and
whether it still counts is read anew for each request: a revoked token ends its sessions, too.
"""

import hmac
import re
import secrets
import time
from hashlib import sha256
from pathlib import Path
from typing import Final

from flask import Request

import hsm
from app.auth.api_tokens import TokenWay, id_of
from app.auth.schemes import Audience, Claim, refusing
from app.observability.multiprocess import shared_directory

COOKIE: Final = "jose_hsm_session"
SESSION_SECONDS: Final = 3600

_KEY_BYTES: Final = 32
_FORM: Final = re.compile(
    r"(?P<signed>(?P<id>[0-9a-f]{16})\.(?P<ends>[0-9]{10}))\.(?P<mac>[0-9a-f]{64})"
)
_UNKNOWN: Final = "token:?"


def _shared_key() -> bytes:
    """Return the key of all workers of a master, made by the first who asks; it ends with him."""
    if (directory := shared_directory()) is None:
        return secrets.token_bytes(_KEY_BYTES)
    path = Path(directory, "sessions.key")
    with hsm.file_lock(path.with_suffix(".lock")):
        if not path.exists():
            hsm.replace(path, secrets.token_bytes(_KEY_BYTES), synced=False)
        return path.read_bytes()


class Sessions:
    """Proves who has signed in. It is a way to authenticate where people fill in forms alone."""

    def __init__(self, tokens: TokenWay, audience: Audience) -> None:
        self._key = _shared_key()
        self._tokens = tokens
        self._audience = audience

    def cookie_for(self, token: str) -> str:
        """Return the value of a cookie that stands for an API token, which has been proven."""
        signed = f"{id_of(token)}.{int(time.time()) + SESSION_SECONDS:010}"
        return f"{signed}.{self._mac(signed)}"

    def claim(self, request: Request) -> Claim | None:
        """Return who has signed in, if that is not over."""
        if request.endpoint not in self._audience.forms:
            return None
        cookie = request.cookies.get(COOKIE)
        return None if cookie is None else self._claim_by(cookie)

    def _claim_by(self, cookie: str) -> Claim | None:
        found = _FORM.fullmatch(cookie)
        if found is None or not hmac.compare_digest(found["mac"], self._mac(found["signed"])):
            return Claim(principal=_UNKNOWN, prove=refusing("unknown session"))
        is_over = int(found["ends"]) <= time.time()
        return None if is_over else self._tokens.claim_of(found["id"])

    def _mac(self, signed: str) -> str:
        return hmac.new(self._key, signed.encode("ascii"), sha256).hexdigest()
