"""Under which key-encryption keys the keys of the registry are."""

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import select

from app.registry.databases.database import Database
from app.registry.databases.reading import readable
from app.registry.records import Key, blob_values, record_of
from app.registry.rows.tallies import Tallies
from app.registry.tables import keys
from hsm import Blob


class Keks:
    """The key-encryption keys that rows name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def in_use(self) -> Mapping[UUID, int]:
        """Return how many keys are under each of them."""
        return Tallies(self._database).by_kek()

    def under(self, kek: UUID, *, after: UUID, limit: int) -> list[Key]:
        """Return keys that are under ``kek``, in the order of their kids, those ``after`` one."""
        query = (
            select(keys)
            .where(keys.c.kek == str(kek), keys.c.kid > str(after))
            .order_by(keys.c.kid)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return readable(connection, query, record_of)

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
