"""Keys that were deleted and can be had back, until their time is over.

Each step is one update that asks for the state before it, so that of all who try, on however many
hosts, one succeeds.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, select

from app.registry.databases.database import Database
from app.registry.reading import readable
from app.registry.records import DESTROYED, VISIBLE, State, ref_of
from app.registry.tables import SPEC, keys
from hsm import KeyRef

_IS_DELETED: Final = keys.c.state == State.DESTROYING


class Postponed:
    """Destructions that are put off."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        is_in_time = and_(_IS_DELETED, keys.c.destroy_at > datetime.now(UTC))
        return self._change(
            kid, is_in_time, state=keys.c.state_before, state_before=None, destroy_at=None
        )

    def overdue(self) -> Mapping[UUID, KeyRef]:
        """Return the keys whose time is over."""
        query = select(*SPEC).where(_is_overdue())
        with self._database.reading() as connection:
            return {ref.kid: ref for ref in readable(connection, query, ref_of)}

    def mark_destroyed(self, kid: UUID) -> bool:
        """Hide a key for ever whose time is over; return whether it was this call that did.

        From then on its alias is free.
        """
        return self._change(kid, _is_overdue(), **DESTROYED)

    def _change(self, kid: UUID, condition: ColumnElement[bool], **values: Any) -> bool:
        update = (
            keys.update()
            .where(keys.c.kid == str(kid), condition)
            .values(changed_at=datetime.now(UTC), **values)
        )
        with self._database.writing() as connection:
            return connection.execute(update).rowcount == 1


def _is_overdue() -> ColumnElement[bool]:
    return and_(_IS_DELETED, keys.c.destroy_at <= datetime.now(UTC))
