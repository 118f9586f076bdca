"""API tokens: ``jh_`` and 256 random bits, of which only a hash is kept."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from threading import Lock
from typing import Final

from cachetools import TTLCache
from flask import Request

from app.auth.schemes import Audience, Claim, Refused, Roles, bearer, refusing, roles_of
from app.errors import RegistryUnavailable
from app.registry import ApiToken, Credentials
from app.rights import Principal, Role

PREFIX: Final = "jh_"
KIND: Final = "token:"

_RANDOM_BYTES: Final = 32
_ID_LENGTH: Final = 16
_UNKNOWN: Final = f"{KIND}?"
_USE_SECONDS: Final = 60.0
_MOST_USES: Final = 10_000


def make(
    principal: str, *, roles: Iterable[Role], name: str | None, expires_at: datetime | None
) -> tuple[str, ApiToken]:
    """Return a new token, which is to be shown once, and its row."""
    token = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    digest = _hash(token)
    return token, ApiToken(
        id=digest[:_ID_LENGTH],
        hash=digest,
        name=name,
        principal=principal,
        roles=tuple(sorted(roles)),
        created_at=datetime.now(UTC),
        expires_at=expires_at,
    )


class TokenWay:
    """Proves ``token:NAME``. One read for each request, so a revocation counts at once."""

    def __init__(self, credentials: Credentials, roles: Roles, audience: Audience) -> None:
        self._credentials = credentials
        self._roles = roles
        self._audience = audience
        self._lock = Lock()
        self._used: TTLCache[str, bool] = TTLCache(_MOST_USES, _USE_SECONDS)

    def claim(self, request: Request) -> Claim | None:
        """Return whose API token the request bears."""
        token = bearer(request, self._audience)
        if token is None or not token.startswith(PREFIX):
            return None
        return self.claim_by(token)

    def claim_by(self, token: str) -> Claim:
        """Return whose API token that is."""
        digest = _hash(token)
        row = self._credentials.find(digest[:_ID_LENGTH])
        is_its = row is not None and hmac.compare_digest(row.hash, digest)
        return self._claim(row if is_its else None)

    def claim_of(self, token_id: str) -> Claim:
        """Return whose the API token with that id is, of which nothing else is known."""
        return self._claim(self._credentials.find(token_id))

    def _claim(self, row: ApiToken | None) -> Claim:
        if row is None:
            return Claim(principal=_UNKNOWN, prove=refusing("unknown API token"))
        return Claim(principal=row.principal, prove=lambda: self._prove(row))

    def _prove(self, row: ApiToken) -> Principal:
        if row.refusal is not None:
            raise Refused(f"API token {row.id} is {row.refusal}")
        self._remember_use(row)
        return self._roles.principal(row.principal, roles_of(row.roles))

    def _remember_use(self, row: ApiToken) -> None:
        """Write that the token is used, once a minute; it is no matter if that fails."""
        with self._lock:
            if row.id in self._used:
                return
            self._used[row.id] = True
        if row.used_at is None or (datetime.now(UTC) - row.used_at).total_seconds() > _USE_SECONDS:
            with suppress(RegistryUnavailable):
                self._credentials.used(row.id)


def id_of(token: str) -> str:
    """Return the id that a token has in the registry and in logs."""
    return _hash(token)[:_ID_LENGTH]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
