"""API tokens: their hashes, and what they say."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import bindparam, func, insert, select, update

from app.registry.databases.database import Database, instant
from app.registry.databases.reading import legible, readable
from app.registry.tables import tokens

_FIND: Final = select(tokens).where(tokens.c.id == bindparam("id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """One row. ``hash`` is the SHA-256 of the token in hexadecimal, ``id`` its beginning."""

    id: str
    hash: str = field(repr=False)
    name: str | None
    principal: str
    roles: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    used_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def refusal(self) -> str | None:
        """Why the token does not count any more."""
        if self.revoked_at:
            return "revoked"
        if self.expires_at and self.expires_at <= datetime.now(UTC):
            return "expired"
        return None


class Credentials:
    """API tokens by id."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lookup = database.lookup(_FIND, _record)

    def add(self, token: ApiToken) -> None:
        """Add a token."""
        with self._database.writing() as connection:
            connection.execute(
                insert(tokens).values(
                    id=token.id,
                    hash=token.hash,
                    name=token.name,
                    principal=token.principal,
                    roles=" ".join(token.roles),
                    created_at=token.created_at,
                    expires_at=token.expires_at,
                )
            )

    def find(self, token_id: str) -> ApiToken | None:
        """Return the token with that id."""
        found: ApiToken | None = self._database.one(self._lookup, id=token_id)
        return found

    def all(self) -> Sequence[ApiToken]:
        """Return all tokens, the oldest first."""
        query = select(tokens).order_by(tokens.c.created_at, tokens.c.id)
        with self._database.reading() as connection:
            return readable(connection, query, _record)

    def next_expiry(self, now: datetime) -> datetime | None:
        """Return when the next token that counts expires; ``None`` if none does."""
        first = select(func.min(tokens.c.expires_at))
        query = first.where(tokens.c.expires_at > now, tokens.c.revoked_at.is_(None))
        with self._database.reading() as connection, legible():
            return instant(connection.scalar(query))

    def revoke(self, token_id: str) -> bool:
        """Make a token void for ever; return whether there is one with that id."""
        return self._set(token_id, revoked_at=datetime.now(UTC))

    def used(self, token_id: str) -> None:
        """Remember that a token has just been used."""
        self._set(token_id, used_at=datetime.now(UTC))

    def _set(self, token_id: str, **values: datetime) -> bool:
        change = update(tokens).where(tokens.c.id == token_id).values(values)
        with self._database.writing() as connection:
            return connection.execute(change).rowcount == 1


def _record(row: Any) -> ApiToken:
    return ApiToken(
        id=row.id,
        hash=row.hash,
        name=row.name,
        principal=row.principal,
        roles=tuple(row.roles.split()),
        created_at=instant(row.created_at) or datetime.min.replace(tzinfo=UTC),
        expires_at=instant(row.expires_at),
        used_at=instant(row.used_at),
        revoked_at=instant(row.revoked_at),
    )
