"""A PostgreSQL that hangs, goes away or is at something, and how long a registry waits for it.

These tests wait themselves, and so they are not among the many small ones of the last folder.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.errors import RegistryUnavailable
from app.registry import Registry, migrate
from app.registry.databases.engines import engine_of
from tests.shared.waiting import OUTAGE, PATIENCE_SECONDS, until
from tests.unit.test_defaults_of_postgresql import set_default
from tests.unit.test_registry import PAIR, SECRET


@pytest.mark.promise
def test_a_postgresql_that_hangs_is_not_waited_for(postgresql):
    registry = Registry(postgresql.registry(), host="host")
    registry.insert(PAIR)
    threads = ThreadPoolExecutor(4)
    assert all(threads.map(lambda _: registry.find(PAIR.kid) == PAIR, range(50)))

    def is_refused(act: Callable[[], object]) -> bool:
        with pytest.raises(RegistryUnavailable):
            act()
        return True

    acts: list[Callable[[], object]]
    acts = [partial(registry.find, PAIR.kid), partial(registry.insert, SECRET)] * 20
    with postgresql.hanging():
        started = time.monotonic()
        waits = [threads.submit(is_refused, act) for act in acts]
        assert all(wait.result(PATIENCE_SECONDS) for wait in waits)
        # Each would have waited two seconds: four at a time, for twenty.
        assert time.monotonic() - started < OUTAGE.seconds

    def is_back() -> bool:
        with suppress(RegistryUnavailable):
            return registry.find(PAIR.kid) == PAIR
        return False

    until(is_back)
    threads.shutdown()
    registry._database.engine.dispose()


def test_a_registry_that_went_away_is_used_again_when_it_is_back(postgresql):
    registry = Registry(postgresql.registry(), host="host")
    registry.insert(PAIR)
    threads = ThreadPoolExecutor(4)  # each has a connection of its own

    def finds(_number: int) -> bool:
        return registry.find(PAIR.kid) == PAIR

    assert all(threads.map(finds, range(50)))
    postgresql.stop()
    try:
        for act in (partial(registry.find, PAIR.kid), partial(registry.insert, SECRET)):
            with pytest.raises(RegistryUnavailable):
                act()
    finally:
        postgresql.start()
    assert all(threads.map(finds, range(50)))
    registry.insert(SECRET)
    assert registry.find(SECRET.kid) == SECRET
    threads.shutdown()
    registry._database.engine.dispose()


def test_one_that_was_restarted_meanwhile_is_not_noticed(postgresql):
    registry = Registry(postgresql.registry(), host="host")
    registry.insert(PAIR)
    assert registry.find(PAIR.kid) == PAIR
    postgresql.stop()
    postgresql.start()
    assert registry.find(PAIR.kid) == PAIR
    assert registry.mark_destroyed(PAIR.kid)
    registry._database.engine.dispose()


def test_a_migration_and_a_backup_may_take_longer_than_a_request(postgresql):
    """And longer than the account or the database has it."""
    url = postgresql.registry()
    set_default(url, "statement_timeout = '1s'")
    for is_maintenance in (False, True):
        engine = engine_of(url, is_maintenance=is_maintenance)
        with engine.connect() as connection:
            slow = text("SELECT pg_sleep(2)")
            if is_maintenance:
                connection.execute(slow)
            else:
                with pytest.raises(OperationalError):
                    connection.execute(slow)
        engine.dispose()


WAITS_LONG = """
    SELECT EXISTS (
        SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database
        WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted
        AND clock_timestamp() - waitstart > interval '2s'
    )
"""


def test_whoever_migrates_waits_for_another_who_does(postgresql):
    """Longer than requests wait for a lock."""
    url = postgresql.empty()
    engine = engine_of(url, is_maintenance=True)
    with ThreadPoolExecutor(1) as threads, engine.begin() as other:
        other.execute(text("SELECT pg_advisory_xact_lock(1785688933)"))
        waiting = threads.submit(migrate, url)
        until(lambda: waiting.done() or other.scalar(text(WAITS_LONG)))
        other.rollback()
        waiting.result()
    engine.dispose()
