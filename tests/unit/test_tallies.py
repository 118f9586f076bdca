"""How many keys there are is right after every change of a row, whoever makes it."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import alembic.command
from sqlalchemy import delete, func, insert, select, update

from app.registry import Key, Origin, Registry, Residency, State, counts, transfer
from app.registry.records import values_of
from app.registry.revisions import alembic_config
from app.registry.rows import tallies as merging
from app.registry.tables import keys, tallies
from hsm import Blob, KeySpec, Storage

TODAY = datetime.now(UTC).date()
AES = Key(
    kid=UUID(int=0),
    kid_public=None,
    owner="owner",
    spec=KeySpec(kty="oct", alg="A256GCM", bits=256),
    origin=Origin.GENERATED,
    residency=Residency.TOKEN,
    state=State.ACTIVE,
)
KEPT = replace(
    AES,
    spec=KeySpec(kty="EC", alg="ES256", crv="P-256"),
    storage=Storage.WRAPPED,
    blob=Blob(kek=UUID(int=1), octets=b"wrapped", seal=b"seal"),
)


def new(registry: Registry, key: Key = AES, **values: Any) -> Key:
    key = replace(key, kid=uuid4(), **values)
    registry.insert(key)
    return key


def told(registry: Registry) -> Counter[tuple[Any, ...]]:
    numbers: Counter[tuple[Any, ...]] = Counter()
    for *kind, _, number in registry.census.groups(idle_since=TODAY):
        numbers[tuple(kind)] += number
    return numbers


def there_are(registry: Registry) -> Counter[tuple[Any, ...]]:
    """Look at every row."""
    kind = keys.c.kty, keys.c.crv, keys.c.bits, keys.c.state
    with registry._database.reading() as connection:
        rows = connection.execute(select(*kind, func.count()).group_by(*kind))
        return Counter({tuple(row[:-1]): row[-1] for row in rows})


def is_right(registry: Registry, total: int) -> bool:
    by_kek = registry.census.tallies.by_kek()
    with registry._database.reading() as connection:
        named = connection.scalars(select(keys.c.kek).where(keys.c.kek.is_not(None)))
        assert by_kek == Counter(map(UUID, named))
    assert told(registry) == there_are(registry)
    by_state: Counter[tuple[Any, ...]] = Counter()
    for (kty, _crv, _bits, state), number in there_are(registry).items():
        by_state[kty, state] += number
    assert registry.census.tallies.by_state() == by_state
    return registry.census.tallies.total() == total


def test_the_numbers_are_right_after_every_change(registry):
    assert is_right(registry, 0)
    pending, kept = new(registry, state=State.PENDING), new(registry, KEPT)
    assert is_right(registry, 2)
    registry.activate_all({pending.ref: None})
    assert told(registry)["oct", None, 256, "active"] == 1
    active = replace(pending, state=State.ACTIVE)
    assert registry.change(active, name="a name")
    assert registry.change(active, state=State.COMPROMISED)
    assert is_right(registry, 2)
    assert registry.keks.replace(kept, Blob(kek=UUID(int=2), octets=b"anew", seal=b"other"))
    assert registry.census.tallies.by_kek() == {UUID(int=2): 1}
    registry.mark_destroyed(kept.kid)
    assert is_right(registry, 2)
    registry.remove(kept.kid)
    assert is_right(registry, 1)
    registry.abandon(active.kid)
    assert is_right(registry, 1)


def test_what_is_changed_in_the_database_itself_is_counted(registry):
    for _ in range(3):
        new(registry)
    with registry._database.writing() as connection:
        connection.execute(update(keys).values(state="compromised", bits=128))
    assert told(registry) == {("oct", None, 128, "compromised"): 3}
    with registry._database.writing() as connection:
        connection.execute(delete(keys))
    assert is_right(registry, 0)


def test_what_is_taken_back_is_not_counted(registry):
    new(registry)
    with registry._database.writing() as connection:
        connection.execute(update(keys).values(state="compromised"))
        connection.rollback()
    assert told(registry) == {("oct", None, 256, "active"): 1}


def test_merging_changes_no_number(registry, monkeypatch):
    monkeypatch.setattr(merging, "_MANY", 4)
    monkeypatch.setattr(merging, "_BATCH", 7)
    for key in (AES, KEPT, AES, KEPT, AES):
        registry.mark_destroyed(new(registry, key).kid)
    for state in (State.ACTIVE, State.DEACTIVATED):
        new(registry, state=state)
    before = told(registry)
    registry.census.tallies.merge()
    assert told(registry) == before
    assert is_right(registry, 7)
    with registry._database.reading() as connection:
        assert (connection.scalar(select(func.count()).select_from(tallies)) or 0) < 17


def test_keys_of_before_the_migration_are_counted(database_url):
    config = alembic_config(database_url)
    alembic.command.upgrade(config, "0011")
    made = {"host": "host", "created_at": datetime.now(UTC), "changed_at": datetime.now(UTC)}
    before = Registry(database_url, host="host")
    with before._database.writing() as connection:
        rows = [values_of(replace(key, kid=uuid4())) | made for key in (AES, KEPT, AES)]
        for row in rows:
            connection.execute(insert(keys).values(row))
    alembic.command.upgrade(config, "head")
    assert is_right(before, 3)
    alembic.command.downgrade(config, "0011")
    alembic.command.upgrade(config, "head")
    new(before)
    assert is_right(before, 4)
    before._database.engine.dispose()


def test_a_registry_that_is_put_back_is_counted_anew(registry, registry_url):
    new(registry)
    new(registry, KEPT)
    with transfer.snapshot(registry_url) as (_, rows):
        saved = list(rows)
    assert {table for table, _ in saved} == {"keys"}
    new(registry, state=State.PENDING)
    transfer.replace_all(registry_url, saved)
    assert is_right(registry, 2)


def test_two_who_make_keys_at_once_do_not_wait_for_each_other(postgresql):
    url = postgresql.registry()
    one, two = (Registry(url, host="host") for _ in range(2))
    row = values_of(AES) | {"host": "one", "created_at": TODAY, "changed_at": TODAY}
    with one._database.writing() as connection:
        connection.execute(insert(keys).values(row))
        new(two)
        assert is_right(two, 1)
    assert is_right(two, 2)
    for registry in (one, two):
        registry._database.engine.dispose()


def test_of_many_keys_a_sample_says_how_many_are_idle_and_over(registry, monkeypatch):
    monkeypatch.setattr(counts, "SAMPLE", 2)
    over = {UUID(int=1), UUID(int=4)}
    for number in range(1, 7):
        key = replace(AES, kid=UUID(int=number))
        registry.insert(key)
        if key.kid in over:
            registry.change(key, expires_at=datetime.now(UTC) - timedelta(days=1))
    groups = registry.census.groups(idle_since=date.max)
    assert {group[3:] for group in groups} == {("active", True, 3), ("deactivated", True, 3)}
    registry.uses.note(UUID(int=2))
    registry.uses.write()
    groups = registry.census.groups(idle_since=TODAY)
    assert sum(group.number for group in groups) == 6
    assert not any(group.is_idle for group in groups)  # they were made today
