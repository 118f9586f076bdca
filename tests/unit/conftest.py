"""A registry for tests that need no token."""

from collections.abc import Iterator

import pytest

from app.registry import Registry, migrate


@pytest.fixture
def registry(database_url: str) -> Iterator[Registry]:
    """One on each database, with the newest schema."""
    migrate(database_url)
    registry = Registry(database_url, host="host")
    yield registry
    registry._database.engine.dispose()
