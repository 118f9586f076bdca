"""A row that was read is used again until anybody changes the registry, and never after that."""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Client, Listener
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, text

from app.auth import api_tokens
from app.registry import Key, Registry, State
from app.registry.databases import readers
from app.registry.databases.readers import Reader, Readers
from app.rights import Role
from scripts.throwaway import make_registry
from tests.shared.drivers import beside
from tests.shared.reads import reads_of
from tests.unit.test_registry import PAIR

BOB = "token:bob"
INACTIVE = replace(PAIR, state=State.DEACTIVATED)


@pytest.fixture
def registry(registry_url: str) -> Iterator[Registry]:
    registry = Registry(registry_url, host="host")
    registry.insert(PAIR)
    yield registry
    registry._database.engine.dispose()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return make_registry(tmp_path / "registry.db")


@pytest.fixture
def kept(url: str) -> Iterator[Registry]:
    """A registry in SQLite, with a key whose row is kept."""
    registry = Registry(url, host="host")
    registry.insert(PAIR)
    look(registry)
    with reads_of(registry) as reads:
        look(registry)
    assert reads == []
    yield registry
    registry._database.engine.dispose()


def look(
    registry: Registry, key: Key = PAIR, *, principal: str = BOB, operation: str = "sign"
) -> Any:
    """Return the key and whether the operation is granted on it; ``None`` if there is none."""
    found = registry.find_for(principal, operation, str(key.kid))
    return found and found[:2]


def is_sqlite(registry: Registry) -> bool:
    return registry._database.engine.dialect.name == "sqlite"


# --- What is kept ---


def test_a_row_is_read_once_where_the_database_tells_of_changes(registry):
    found = look(registry)
    with reads_of(registry) as reads:
        assert [look(registry) for _ in range(3)] == 3 * [found]
    assert len(reads) == (0 if is_sqlite(registry) else 3)


def test_each_use_is_counted_whether_a_row_was_read_or_kept(url):
    seconds: list[float] = []
    registry = Registry(url, host="host", observe=seconds.append)
    registry.insert(PAIR)
    seconds.clear()
    for _ in range(3):
        look(registry)
    assert len(seconds) == 3
    registry._database.engine.dispose()


def test_what_is_kept_is_found_by_kid_principal_and_operation_together(kept):
    kept.grants.put(PAIR.kid, BOB, ["sign"])
    for _ in range(2):
        assert look(kept) == (PAIR, True)
        assert look(kept, operation="verify") == (PAIR, False)
        assert look(kept, principal="token:eve") == (PAIR, False)
        assert kept.find(PAIR.kid) == PAIR
        assert kept.find(uuid4()) is None


def test_a_key_that_expires_is_not_kept(kept):
    kept.change(PAIR, expires_at=datetime.now(UTC) + timedelta(days=1))
    look(kept)
    with reads_of(kept) as reads:
        look(kept)
    assert len(reads) == 1


def test_no_more_is_kept_than_there_is_room_for(kept, monkeypatch):
    monkeypatch.setattr(readers, "_MOST_KEPT", 3)
    many = [replace(PAIR, kid=uuid4(), kid_public=uuid4()) for _ in range(10)]
    for key in many:
        kept.insert(key)
    for key in many:
        assert look(kept, key) == (key, False)
    own = kept._database._readers
    assert len(own.own_on(own.file).kept()) <= 3


# --- What has changed ---


def set_state(registry: Registry, kid: UUID, state: State) -> None:
    key = registry.whole(kid)
    assert key
    assert registry.change(key, state=state)


CHANGES: Mapping[str, Callable[[Registry, UUID], object]] = MappingProxyType(
    {
        "deactivate": lambda registry, kid: set_state(registry, kid, State.DEACTIVATED),
        "activate": lambda registry, kid: set_state(registry, kid, State.ACTIVE),
        "grant": lambda registry, kid: registry.grants.put(kid, BOB, ["sign"]),
        "revoke": lambda registry, kid: registry.grants.put(kid, BOB, ()),
        "destroy": lambda registry, kid: registry.mark_destroyed(kid),
    }
)
FOUND = (
    ("deactivate", (INACTIVE, False)),
    ("grant", (INACTIVE, True)),
    ("activate", (PAIR, True)),
    ("revoke", (PAIR, False)),
)


def obey(url: str, address: str) -> None:
    """Make changes in a process of its own; say when each is made."""
    registry = Registry(url, host="other")
    with Client(address) as orders:
        while True:
            name, kid = orders.recv()
            CHANGES[name](registry, kid)
            orders.send("done")


@pytest.fixture
def order(url: str) -> Iterator[Callable[..., None]]:
    """Return what has another process make a change, and returns when it is made."""
    with (
        Listener(family="AF_UNIX") as listener,
        beside({}, obey, url, listener.address),
        listener.accept() as other,
    ):

        def have_made(name: str, kid: UUID) -> None:
            other.send((name, kid))
            assert other.recv() == "done"

        yield have_made


rounds = pytest.mark.parametrize("rounds", [10, pytest.param(125, marks=pytest.mark.long)])


@rounds
def test_a_change_of_another_process_counts_at_once(kept, order, rounds):
    for _ in range(rounds):
        for name, expected in FOUND:
            order(name, PAIR.kid)
            assert [look(kept), look(kept)] == [expected, expected]


@rounds
def test_a_key_destroyed_by_another_process_is_gone_at_once(kept, order, rounds):
    for _ in range(rounds):
        key = replace(PAIR, kid=uuid4(), kid_public=uuid4())
        kept.insert(key)
        assert [look(kept, key), look(kept, key)] == 2 * [(key, False)]
        order("destroy", key.kid)
        assert (look(kept, key), kept.find(key.kid)) == (None, None)


def test_a_change_of_the_same_process_counts_at_once(kept):
    for name, expected in (*FOUND, ("destroy", None)):
        CHANGES[name](kept, PAIR.kid)
        assert [look(kept), look(kept)] == [expected, expected]


def test_an_api_token_is_void_at_once(kept):
    token = api_tokens.make(BOB, roles=[Role.ADMIN], name=None, expires_at=None)[1]
    kept.credentials.add(token)
    assert [kept.credentials.find(token.id).refusal for _ in range(2)] == [None, None]
    kept.credentials.revoke(token.id)
    assert kept.credentials.find(token.id).refusal == "revoked"


def test_a_change_while_a_row_is_read_is_seen_the_next_time(kept, url):
    other, rows, own = Registry(url, host="other"), Reader.rows, threading.get_ident()
    kept.grants.put(PAIR.kid, "token:eve", ["sign"])  # so that the row is read once more

    def change_after(reader: Reader, sql: str, parameters: Any = ()) -> Any:
        found = rows(reader, sql, parameters)
        if not sql.startswith("PRAGMA") and threading.get_ident() == own:
            CHANGES["deactivate"](other, PAIR.kid)
        return found

    with patch.object(Reader, "rows", change_after):
        assert look(kept) == (PAIR, False)
    assert look(kept) == (INACTIVE, False)
    other._database.engine.dispose()


def test_what_is_not_committed_is_not_found_and_then_is(kept, url):
    other = Registry(url, host="other")
    with closing(other._database.engine.raw_connection()) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("UPDATE keys SET state = 'deactivated'")
        assert look(kept) == (PAIR, False)
        connection.commit()
        assert look(kept) == (INACTIVE, False)
    other._database.engine.dispose()


@pytest.fixture
def replace_file(kept: Registry, url: str, tmp_path: Path) -> Callable[[], None]:
    """Put another file in the place of the registry, in which the key is deactivated."""
    path, copy = Path(url.removeprefix("sqlite:///")), tmp_path / "copy.db"
    with kept._database.engine.connect() as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    shutil.copy(path, copy)
    restored = Registry(f"sqlite:///{copy}", host="host")
    CHANGES["deactivate"](restored, PAIR.kid)
    restored._database.engine.dispose()

    def replace_file() -> None:
        for old in tmp_path.glob("registry.db-*"):
            old.unlink()
        copy.replace(path)

    return replace_file


def test_another_file_is_read_at_once(kept, replace_file):
    assert look(kept) == (PAIR, False)
    replace_file()
    assert look(kept) == (INACTIVE, False)


def test_a_file_that_takes_the_place_of_one_while_it_is_opened_is_read_next(
    url, replace_file, monkeypatch
):
    registry, connect = Registry(url, host="host"), Readers._connect

    def replaced(own: Readers) -> Any:
        connection = connect(own)
        replace_file()
        return connection

    with monkeypatch.context() as patched:
        patched.setattr(Readers, "_connect", replaced)
        assert look(registry) == (PAIR, False)
    assert look(registry) == (INACTIVE, False)
    registry._database.engine.dispose()


def test_nothing_is_written_to_a_file_that_is_replaced_while_it_is_opened(url, replace_file):
    registry = Registry(url, host="host")
    event.listen(
        registry._database.engine, "connect", lambda *_: replace_file(), insert=True, once=True
    )
    assert registry.change(INACTIVE, name="a name")  # in the other one it is active
    registry._database.engine.dispose()
