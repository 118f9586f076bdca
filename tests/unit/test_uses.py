"""The day of the last use of each key: noted, written, and never set back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, inspect, select, update

from app.errors import RegistryUnavailable
from app.registry import Filters, Key, Registry, migrate
from app.registry.records import values_of
from app.registry.revisions import alembic_config
from app.registry.tables import keys, uses
from app.registry.uses import today
from tests.shared.reads import reads_of
from tests.unit.test_registry import SECRET

DAY = timedelta(days=1)


@pytest.fixture
def registry(registry_url: str) -> Iterator[Registry]:
    registry = Registry(registry_url, host="host")
    yield registry
    registry._database.engine.dispose()


@pytest.fixture
def other(registry: Registry, registry_url: str) -> Iterator[Registry]:
    """The registry as another worker has it, on whatever host."""
    other = Registry(registry_url, host="other")
    yield other
    other._database.engine.dispose()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the day that it is."""

    def set_day(day: date) -> None:
        number = (day - date(1970, 1, 1)).days
        monkeypatch.setattr("app.registry.uses._today", lambda: number)

    set_day(date(2026, 3, 1))
    return set_day


def new(registry: Registry, **members: Any) -> UUID:
    key: Key = replace(SECRET, kid=uuid4(), **members)
    registry.insert(key)
    return key.kid


def write_into_columns_that_are_there(registry: Registry, key: Key) -> None:
    """Write the row of a key as the version of the schema that is there has it."""
    columns = inspect(registry._database.engine).get_columns("keys")
    there = {column["name"] for column in columns}
    row = {name: value for name, value in values_of(key).items() if name in there}
    row |= {"host": "host", **dict.fromkeys(("created_at", "changed_at"), datetime.now(UTC))}
    with registry._database.writing() as connection:
        connection.execute(insert(keys).values(row))


def used(registry: Registry, kid: UUID) -> date | None:
    return days(registry, [kid]).get(kid)


def days(registry: Registry, kids: list[UUID]) -> dict[UUID, date]:
    remarks = registry.pages.remarks_on(kids)
    return {kid: its.used for kid, its in remarks.items() if its.used}


def use(registry: Registry, *kids: UUID) -> None:
    for kid in kids:
        registry.uses.note(kid)
    registry.uses.write()


def test_a_use_is_noted_without_a_word_to_the_registry_and_written_once_a_day(registry, clock):
    kid = new(registry)
    with reads_of(registry) as asked:
        registry.uses.note(kid)
        registry.uses.note(kid)
    assert (asked, used(registry, kid)) == ([], None)
    registry.uses.write()
    assert used(registry, kid) == date(2026, 3, 1)
    with reads_of(registry) as asked:
        use(registry, kid)
    assert asked == []
    clock(date(2026, 3, 2))
    use(registry, kid)
    assert used(registry, kid) == date(2026, 3, 2)


def test_a_later_day_stands_whoever_comes_last(registry, other, clock):
    kid = new(registry)
    clock(date(2026, 3, 5))
    use(registry, kid)
    clock(date(2026, 3, 4))  # by the clock of another host, or noted before midnight
    use(other, kid)
    assert used(registry, kid) == date(2026, 3, 5)
    clock(date(2026, 3, 6))
    use(other, kid)
    assert used(registry, kid) == date(2026, 3, 6)


def test_days_that_could_not_be_written_together_are_each_written(registry, clock, monkeypatch):
    early, late = new(registry), new(registry)
    registry.uses.note(early)
    with monkeypatch.context() as away:
        away.setattr(registry._database, "require", unavailable)
        registry.uses.write()
        clock(date(2026, 3, 2))
        registry.uses.note(late)
        registry.uses.write()
    registry.uses.write()
    assert days(registry, [early, late]) == {early: date(2026, 3, 1), late: date(2026, 3, 2)}


def unavailable(_file: object) -> None:
    raise RegistryUnavailable


def test_of_a_key_that_is_gone_nothing_is_left(registry, clock):
    kid, unknown = new(registry), uuid4()
    use(registry, kid, unknown)
    clock(date(2026, 3, 2))
    registry.uses.note(kid)
    registry.remove(kid)
    registry.uses.write()
    with registry._database.reading() as connection:
        assert connection.execute(select(uses)).all() == []


def test_whoever_is_forgotten_is_noted_again(registry, clock, monkeypatch):
    monkeypatch.setattr("app.registry.uses._MOST_NOTED", 2)
    kids = [new(registry) for _ in range(5)]
    use(registry, *kids, *kids)
    assert set(days(registry, kids)) == set(kids)


def test_more_keys_than_one_statement_takes_are_written(registry, clock, monkeypatch):
    monkeypatch.setattr("app.registry.uses._BATCH", 2)
    kids = [new(registry) for _ in range(5)]
    use(registry, *kids)
    assert set(days(registry, kids)) == set(kids)


def test_workers_that_write_the_same_keys_do_not_wait_for_each_other_for_ever(
    registry, other, clock
):
    kids = [new(registry) for _ in range(40)]
    for number in range(10):
        clock(date(2026, 3, 1) + number * DAY)
        for kid in kids:
            registry.uses.note(kid)
        for kid in reversed(kids):
            other.uses.note(kid)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda one: one.uses.write(), (registry, other)))
        assert not registry.uses._unwritten
        assert not other.uses._unwritten
    assert set(days(registry, kids).values()) == {date(2026, 3, 10)}


def test_a_block_of_encryptions_is_a_use(registry):
    kid = new(registry)
    before = today()
    assert registry.reserve_encryptions(kid, 10, most=10) == (10, 10)
    assert before <= (used(registry, kid) or date.min) <= today()


def test_a_block_that_is_refused_is_none(registry):
    kid = new(registry)
    with registry._database.writing() as connection:
        connection.execute(update(keys).values(encryptions=10))
    assert registry.reserve_encryptions(kid, 10, most=10) == (0, 20)
    assert used(registry, kid) is None


def test_unused_keys_are_those_that_were_there_before_and_not_used_since(registry, clock):
    old, young, idle, busy = (new(registry, owner="x") for _ in range(4))
    with registry._database.writing() as connection:
        for kid in (old, idle, busy):
            then = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
            change = update(keys).where(keys.c.kid == str(kid)).values(created_at=then)
            connection.execute(change)
        late = datetime(2026, 2, 1, tzinfo=UTC)
        connection.execute(update(keys).where(keys.c.kid == str(young)).values(created_at=late))
    clock(date(2026, 1, 31))
    use(registry, idle)
    clock(date(2026, 2, 1))
    use(registry, busy)

    def unused(day: date) -> set[UUID]:
        filters = Filters(owner="x", unused_since=day)
        return {key.kid for key in registry.pages.page_with_remarks("x", filters)[0]}

    assert unused(date(2026, 2, 1)) == {old, idle}
    assert unused(date(2026, 2, 2)) == {old, young, idle, busy}
    assert unused(date(2026, 1, 31)) == set()


def test_keys_from_before_may_have_been_used_on_the_day_of_the_migration(database_url):
    import alembic.command  # noqa: PLC0415  # as the service has it

    alembic.command.upgrade(alembic_config(database_url), "0009")
    registry = Registry(database_url, host="host")
    before = today()
    write_into_columns_that_are_there(registry, SECRET)
    migrate(database_url)
    assert before <= (used(registry, SECRET.kid) or date.min) <= today()
    registry._database.engine.dispose()
