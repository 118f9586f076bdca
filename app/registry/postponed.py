"""Keys that are there until their time is over: deleted ones, and those that unwrap one import.

Each step is one update that asks for the state before it, so that of all who try, on however many
hosts, one succeeds.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, not_, or_, select

from app.registry.databases.database import Database
from app.registry.databases.reading import readable
from app.registry.records import DESTROYED, VISIBLE, State, activation_of, ref_of
from app.registry.tables import SPEC, keys
from hsm import KeyRef

_BATCH: Final = 1000
_IS_PENDING: Final = keys.c.state == State.PENDING
_IS_WRAPPING: Final = keys.c.state == State.WRAPPING
_IS_DELETED: Final = keys.c.state == State.DESTROYING


class Postponed:
    """Destructions that are put off, or wait for an import."""

    def __init__(self, database: Database, host: str) -> None:
        self._database = database
        self._host = host

    def begin(self, kid: UUID, destroy_at: datetime) -> bool:
        """Hide a visible key until ``destroy_at``; return whether it was this call that did.

        It keeps its alias, its tags and its grants.
        """
        is_visible = keys.c.state.in_(VISIBLE)
        return self._change(
            kid,
            is_visible,
            state=State.DESTROYING,
            state_before=keys.c.state,
            destroy_at=destroy_at,
        )

    def end(self, kid: UUID) -> bool:
        """Bring a key back, as it was; return whether it was this call that did, and in time."""
        return self._change(
            kid,
            _is_in_time(_IS_DELETED),
            state=keys.c.state_before,
            state_before=None,
            destroy_at=None,
        )

    def begin_wrapping(self, ref: KeyRef, public_jwk: Mapping[str, str]) -> bool:
        """Have a pending key wait for one import; return whether it was still there."""
        values = activation_of(ref, public_jwk) | {"state": State.WRAPPING}
        return self._change(condition=_IS_PENDING, **values)

    def end_wrapping(
        self, wrapping: UUID, imported: KeyRef, public_jwk: Mapping[str, str] | None
    ) -> bool:
        """Make a pending key visible that came in by ``wrapping``, which is gone for ever by that.

        Returns whether it was this call that did: of imports by one wrapping key one succeeds.
        """
        with self._database.writing() as connection:
            values = activation_of(imported, public_jwk)
            is_made = spend(connection, wrapping) and _changed(
                connection, condition=_IS_PENDING, **values
            )
            if not is_made:
                connection.rollback()
            return is_made

    def overdue(self, *, others_before: datetime) -> Mapping[UUID, KeyRef]:
        """Return the keys whose time is over, those that were first, and not too many at once.

        Of those that wait for an import, and may be on the token of another host, only those whose
        time was over ``others_before``.
        """
        is_left_to_others = and_(
            _IS_WRAPPING, keys.c.host != self._host, keys.c.destroy_at > others_before
        )
        query = select(*SPEC).where(_is_overdue(), not_(is_left_to_others))
        query = query.order_by(keys.c.destroy_at).limit(_BATCH)
        with self._database.reading() as connection:
            return {ref.kid: ref for ref in readable(connection, query, ref_of)}

    def mark_destroyed(self, kid: UUID) -> bool:
        """Hide a key for ever whose time is over; return whether it was this call that did.

        From then on its alias is free.
        """
        return self._change(kid, _is_overdue(), **DESTROYED)

    def _change(self, kid: UUID, condition: ColumnElement[bool], **values: Any) -> bool:
        with self._database.writing() as connection:
            return _changed(connection, kid, condition, **values)


def spend(connection: Connection, wrapping: UUID) -> bool:
    """Mark a key that unwraps one import; return whether it was this call that did, and in time."""
    return _changed(connection, wrapping, _is_in_time(_IS_WRAPPING), **DESTROYED)


def _changed(
    connection: Connection, kid: UUID, condition: ColumnElement[bool], **values: Any
) -> bool:
    update = (
        keys.update()
        .where(keys.c.kid == str(kid), condition)
        .values(changed_at=datetime.now(UTC), **values)
    )
    return connection.execute(update).rowcount == 1


def _is_in_time(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return and_(condition, keys.c.destroy_at > datetime.now(UTC))


def _is_overdue() -> ColumnElement[bool]:
    return and_(or_(_IS_DELETED, _IS_WRAPPING), keys.c.destroy_at <= datetime.now(UTC))
