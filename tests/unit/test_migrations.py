"""Schemas made anew and brought up to date: wholly or not at all, and once."""

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event
from sqlalchemy.engine import Engine

from app.registry import Age, migrate, revision_at
from app.registry.databases.engines import engine_of
from app.registry.tables import metadata
from tests.shared.drivers import dies, killed


def die_migrating(url: str, change: str) -> None:
    """Be a migration that is killed before it makes a ``change``."""

    def look(_connection: object, _cursor: object, statement: str, *_others: Any) -> None:
        if statement.lstrip().startswith(change):
            killed()

    event.listen(Engine, "before_cursor_execute", look)
    migrate(url)


@pytest.mark.parametrize("change", ["ALTER TABLE keys ADD COLUMN destroy_at", "DROP INDEX"])
def test_a_migration_that_is_killed_leaves_nothing_and_is_begun_anew(database_url, change):
    dies({}, die_migrating, database_url, change)
    assert revision_at(database_url).age is Age.MISSING
    migrate(database_url)
    engine = engine_of(database_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
