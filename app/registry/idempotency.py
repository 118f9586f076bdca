"""Requests to create keys that must not be done twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select

from app.idempotency import IdempotentRequest
from app.registry.databases.database import Database
from app.registry.databases.reading import legible
from app.registry.records import VISIBLE, State
from app.registry.tables import idempotency, keys

REMEMBERED: Final = timedelta(hours=24)
_FORGOTTEN_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """What was answered to a request, or will be once the key is there.

    ``state`` is that of the key, ``None`` once it has been destroyed; of several that of the first,
    and ``None`` once any of them is gone.
    """

    fingerprint: str
    answer: Mapping[str, Any]
    state: State | None

    @property
    def kids(self) -> list[str]:
        """The kids that the answer names."""
        return kids_in(self.answer)

    @property
    def is_made(self) -> bool:
        """Whether the key has been made."""
        return self.state is not State.PENDING

    @property
    def is_gone(self) -> bool:
        """Whether the key has been destroyed since."""
        return self.is_made and self.state not in VISIBLE


class IdempotentAnswers:
    """Answers by principal and request."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, request: IdempotentRequest) -> Repetition | None:
        """Return what is remembered of a request with the same Idempotency-Key."""
        query = (
            select(idempotency, keys.c.state)
            .join_from(idempotency, keys, keys.c.kid == idempotency.c.kid, isouter=True)
            .where(_is_of(request), idempotency.c.created_at > datetime.now(UTC) - REMEMBERED)
        )
        with self._database.reading() as connection, legible():
            row = connection.execute(query).one_or_none()
            if row is None:
                return None
            answer, state = dict(row.answer), State(row.state) if row.state else None
            # All have been made at once: those beside it can only go, from then on.
            if state in VISIBLE and not _are_visible(connection, kids_in(answer)):
                state = None
            return Repetition(fingerprint=row.fingerprint, answer=answer, state=state)

    def forget(self, kid: UUID) -> None:
        """Forget the request that made a key."""
        with self._database.writing() as connection:
            connection.execute(delete(idempotency).where(idempotency.c.kid == str(kid)))


def _is_of(request: IdempotentRequest) -> ColumnElement[bool]:
    """Return the condition that a row is of a request with the same Idempotency-Key."""
    return and_(
        idempotency.c.principal == request.principal, idempotency.c.request == request.request
    )


def kids_in(answer: Mapping[str, Any]) -> list[str]:
    """Return the kids of the keys that ``answer`` tells of, which are several or one."""
    return [key["kid"] for key in answer.get("keys", [answer])]


def _are_visible(connection: Connection, kids: Sequence[str]) -> bool:
    if len(kids) == 1:  # its state is known
        return True
    visible = select(func.count()).where(keys.c.kid.in_(kids), keys.c.state.in_(VISIBLE))
    return connection.execute(visible).scalar_one() == len(kids)


def remember(
    connection: Connection, request: IdempotentRequest, kid: str, answer: Mapping[str, Any]
) -> None:
    """Add a row, in the transaction that adds the key; forget some of those of yesterday."""
    now = datetime.now(UTC)
    _forget_old(connection, request, now)
    connection.execute(
        insert(idempotency).values(
            principal=request.principal,
            request=request.request,
            fingerprint=request.fingerprint,
            kid=kid,
            answer=answer,
            created_at=now,
        )
    )


def _forget_old(connection: Connection, request: IdempotentRequest, now: datetime) -> None:
    """Remove what is in the way of ``request``, and the oldest, but for those others remove.

    All of a day would take longer than a statement may.
    """
    is_old = idempotency.c.created_at <= now - REMEMBERED
    connection.execute(delete(idempotency).where(is_old, _is_of(request)))
    oldest = (
        select(idempotency.c.kid)
        .where(is_old)
        .order_by(idempotency.c.created_at)
        .limit(_FORGOTTEN_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    connection.execute(delete(idempotency).where(idempotency.c.kid.in_(oldest)))


def forget(connection: Connection, kid: str) -> None:
    """Remove the row of a key that has not come to be."""
    pending = select(keys.c.kid).where(keys.c.kid == kid, keys.c.state == State.PENDING)
    connection.execute(delete(idempotency).where(idempotency.c.kid.in_(pending)))
