"""A registry for tests that need no token."""

from collections.abc import Iterator

import pytest

from app.registry import Registry


@pytest.fixture
def registry(registry_url: str) -> Iterator[Registry]:
    """One on each database, with the newest schema."""
    registry = Registry(registry_url, host="host")
    yield registry
    registry._database.engine.dispose()
