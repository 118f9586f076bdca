"""Databases of PostgreSQL that are set up otherwise than a registry would have them."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import make_url, text

from app.registry import Registry, migrate
from app.registry.databases.engines import engine_of
from app.settings import ConfigError
from scripts.throwaway import ROOT
from tests.shared.waiting import until
from tests.unit.test_registry import PAIR

PREPARED = 10  # the driver prepares what is asked so often
IS_WAITING = """
    SELECT EXISTS (
        SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE datname = current_database() AND NOT granted
    )
"""


def set_default(url: str, setting: str) -> None:
    """Have each new connection to a database begin with ``setting``."""
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {make_url(url).database} SET {setting}"))
    engine.dispose()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_does_not_take_all_texts_becomes_no_registry(postgresql, encoding):
    options = f"ENCODING '{encoding}' LOCALE 'C' LOCALE_PROVIDER libc"
    with pytest.raises(ConfigError, match=encoding):
        migrate(postgresql.empty(options=options))


@pytest.mark.parametrize("setting", ["client_encoding = LATIN1", "datestyle = German"])
def test_how_a_database_writes_values_by_default_is_of_no_matter(postgresql, setting):
    url = postgresql.registry()
    set_default(url, setting)
    registry = Registry(url, host="host")
    registry.insert(PAIR)
    registry.tags.add(PAIR.kid, ["\N{CJK UNIFIED IDEOGRAPH-6F22}"])
    found = registry.whole(PAIR.kid)
    assert found is not None
    assert found.created_at is not None
    assert registry.tags.of(PAIR.kid) == ["\N{CJK UNIFIED IDEOGRAPH-6F22}"]
    registry._database.engine.dispose()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_whoever_waits_for_another_goes_on_where_transactions_are_stricter(postgresql, level):
    url = postgresql.registry()
    set_default(url, f"default_transaction_isolation = '{level}'")
    registry = Registry(url, host="host")
    registry.insert(PAIR)
    engine = registry._database.engine
    with ThreadPoolExecutor(1) as threads, engine.begin() as other:
        other.execute(text("UPDATE keys SET encryptions = 5"))
        waiting = threads.submit(registry.reserve_encryptions, PAIR.kid, 1, most=10)
        until(lambda: waiting.done() or other.scalar(text(IS_WAITING)))
        other.commit()
        assert waiting.result() == (1, 6)
    engine.dispose()


def test_a_pooler_may_lend_each_transaction_the_connection_of_another(postgresql):
    """As PgBouncer does; the driver calls what it prepares alike on all of them."""
    with postgresql.pooled(postgresql.registry()) as url:
        registries = [Registry(url, host="host") for _ in range(2)]
        registries[0].insert(PAIR)
        for registry in registries:
            for _ in range(PREPARED):
                assert registry.whole(PAIR.kid) is not None
                assert registry.tags.of(PAIR.kid) == []
        for registry in registries:
            registry._database.engine.dispose()


def test_an_account_that_changes_no_schema_serves(postgresql):
    """By the rights that the documents have the owner give it."""
    [rights] = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/operating.md").read_text(), re.DOTALL)
    url = postgresql.empty()
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(text('CREATE ROLE "jose-hsm-service" LOGIN'))
        connection.execute(text(rights))
    engine.dispose()
    migrate(url)
    registry = Registry(url.replace("test@", "jose-hsm-service@"), host="host")
    registry.check()
    registry.insert(PAIR)
    registry.tags.add(PAIR.kid, ["blue"])
    registry.grants.put(PAIR.kid, "token:bob", ["sign"])
    assert registry.reserve_encryptions(PAIR.kid, 1, most=1) == (1, 1)
    assert registry.mark_destroyed(PAIR.kid)
    assert registry.census.tallies._merge_some() > 0
    registry.remove(PAIR.kid)
    registry._database.engine.dispose()
