"""Grants: which operations the owner of a key lets others do."""

from collections.abc import Iterable, Mapping
from uuid import UUID

from sqlalchemy import delete, insert, select

from app.registry.databases.database import Database
from app.registry.rows.holding import hold
from app.registry.tables import grants


class Grants:
    """Operations by key and principal."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, kid: UUID) -> Mapping[str, list[str]]:
        """Return the operations granted on a key, by principal, sorted."""
        query = select(grants.c.principal, grants.c.operation).where(grants.c.kid == str(kid))
        operations: dict[str, list[str]] = {}
        with self._database.reading() as connection:
            for row in sorted(connection.execute(query)):  # databases have orders of their own
                operations.setdefault(row.principal, []).append(row.operation)
        return operations

    def put(self, kid: UUID, principal: str, operations: Iterable[str]) -> None:
        """Replace what ``principal`` may do with a key.

        Raises ``KeyNotFound`` if that is gone.
        """
        rows = [
            {"kid": str(kid), "principal": principal, "operation": operation}
            for operation in sorted(set(operations))
        ]
        before = delete(grants).where(grants.c.kid == str(kid), grants.c.principal == principal)
        with self._database.writing() as connection:
            hold(connection, kid)  # of two who replace the same at once each would add his own
            connection.execute(before)
            if rows:
                connection.execute(insert(grants), rows)
