"""Under which key-encryption keys the keys of the registry are."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select

from app.registry.databases.database import Database
from app.registry.databases.reading import readable
from app.registry.records import Key, blob_values, record_of
from app.registry.rows.tallies import Tallies
from app.registry.tables import keys
from hsm import Blob


class Page(NamedTuple):
    """Some keys, and the kids of those between them whose rows cannot be read."""

    keys: list[Key]
    unreadable: list[str]

    @property
    def kids(self) -> list[str]:
        """The kids of all of them."""
        return [*(str(key.kid) for key in self.keys), *self.unreadable]


class Keks:
    """The key-encryption keys that rows name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def in_use(self) -> Mapping[UUID, int]:
        """Return how many keys are under each of them."""
        return Tallies(self._database).by_kek()

    def under(self, kek: UUID, *, after: str, limit: int) -> Page:
        """Return keys that are under ``kek``, in the order of their kids, those ``after`` one."""
        query = (
            select(keys)
            .where(keys.c.kek == str(kek), keys.c.kid > after)
            .order_by(keys.c.kid)
            .limit(limit)
        )
        lost: list[Any] = []
        with self._database.reading() as connection:
            found = readable(connection, query, record_of, lost)
        return Page(found, [row.kid for row in lost])

    def replace(self, key: Key, blob: Blob) -> bool:
        """Put ``blob`` in the place of that of ``key``; return whether it was still that one."""
        assert key.blob is not None  # noqa: S101  # it is under a key-encryption key
        update = (
            keys.update()
            .where(keys.c.kid == str(key.kid), keys.c.seal == key.blob.seal)
            .values(**blob_values(blob), changed_at=datetime.now(UTC))
        )
        with self._database.writing() as connection:
            return connection.execute(update).rowcount == 1
