"""Holding the row of a key while what hangs on it changes, and changing one as it was read."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, or_

from app.registry.records import VISIBLE, Key, State
from app.registry.tables import keys
from hsm import KeyNotFound


def hold(connection: Connection, kid: UUID, *conditions: ColumnElement[bool]) -> None:
    """Keep others from a visible key until the transaction ends, who hold it or change it.

    Raises ``KeyNotFound`` if it is not there any more, or not as the ``conditions`` say: nobody
    would ever remove what is added then.
    """
    is_there = keys.c.kid == str(kid), keys.c.state.in_(VISIBLE), *conditions
    # Not SELECT FOR UPDATE, of which SQLite knows nothing.
    if connection.execute(keys.update().where(*is_there).values(kid=keys.c.kid)).rowcount != 1:
        raise KeyNotFound


def is_as_read(key: Key) -> ColumnElement[bool]:
    """Return the condition that a row has the state, the owner and the seal of ``key`` still."""
    its_seal = [] if key.blob is None else [keys.c.seal == key.blob.seal]
    is_in_state = keys.c.state == key.state
    if key.state is State.DEACTIVATED:
        # One that has expired is as it was read unless somebody has made it active again.
        is_over = and_(keys.c.state == State.ACTIVE, keys.c.expires_at <= datetime.now(UTC))
        is_in_state = or_(is_in_state, is_over)
    return and_(is_in_state, keys.c.owner == key.owner, *its_seal)
