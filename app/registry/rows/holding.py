"""Holding the row of a key while what hangs on it changes."""

from uuid import UUID

from sqlalchemy import Connection

from app.registry.records import VISIBLE
from app.registry.tables import keys
from hsm import KeyNotFound


def hold(connection: Connection, kid: UUID) -> None:
    """Keep others from a visible key until the transaction ends, who hold it or change it.

    Raises ``KeyNotFound`` if it is not there any more: nobody would ever remove what is added then.
    """
    is_there = keys.c.kid == str(kid), keys.c.state.in_(VISIBLE)
    # Not SELECT FOR UPDATE, of which SQLite knows nothing.
    if connection.execute(keys.update().where(*is_there).values(kid=keys.c.kid)).rowcount != 1:
        raise KeyNotFound
