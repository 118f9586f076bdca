"""New rows: keys with their tags, and with the request that they answer, in one transaction."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, insert

from app.idempotency import IdempotentRequest
from app.registry.idempotency import remember
from app.registry.postponed import spend
from app.registry.records import Key, State, values_of
from app.registry.tables import keys, tags
from app.registry.tags import Tagging, publish
from hsm import KeyNotFound

Answer = Callable[[Sequence[bool]], Mapping[str, Any]]
"""Returns what is answered for new keys, of which each is published or not."""


def add(  # noqa: PLR0913, PLR0917  # all that hangs on new keys
    connection: Connection,
    host: str,
    new: Sequence[Key],
    tagging: Tagging,
    request: IdempotentRequest | None,
    answer: Answer,
    wrapping: UUID | None = None,
) -> list[bool]:
    """Add a row for each key; return which are published.

    ``answer`` is what to remember of ``request``, by what is published. What came in by the key
    ``wrapping`` ends that one. Raises ``CryptoFailure`` if a key has to be published and there is
    no room, and ``KeyNotFound`` if ``wrapping`` is gone.
    """
    now = datetime.now(UTC)
    made = {"host": host, "created_at": now, "changed_at": now}
    rows = [values_of(key) | made | _activated(key, now) for key in new]
    connection.execute(insert(keys), rows)
    are_published = [_publish(connection, key, tagging) for key in new]
    tagged = [
        {"kid": row["kid"], "tag": name, "tagged_at": now}
        for row in rows
        for name in sorted(tagging.tags)
    ]
    if tagged:
        connection.execute(insert(tags), tagged)
    if request:
        remember(connection, request, rows[0]["kid"], answer(are_published))
    if wrapping and not spend(connection, wrapping):
        raise KeyNotFound
    return are_published


def _activated(key: Key, now: datetime) -> dict[str, Any]:
    """Return when a key became active that is so at once."""
    return {"activated_at": now} if key.state is State.ACTIVE else {}


def _publish(connection: Connection, key: Key, tagging: Tagging) -> bool:
    publication = tagging.publication
    is_published = publication is not None and publish(connection, key.kid, publication)
    tagging.require(is_published=is_published)
    return is_published
