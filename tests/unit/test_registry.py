"""The row that every request reads."""

import locale
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Barrier
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, select, text

from app.auth import api_tokens
from app.errors import AliasTaken, RegistryCause, RegistryUnavailable
from app.idempotency import IdempotentRequest
from app.registry import (
    Age,
    AlreadyRequested,
    Filters,
    Key,
    Origin,
    Publication,
    Registry,
    Residency,
    State,
    Tagging,
    compared,
    migrate,
    revision_at,
    transfer,
)
from app.registry.databases import sqlite
from app.registry.databases.engines import engine_of
from app.registry.databases.queries import FIND, FIND_ALL_FOR, FIND_FOR
from app.registry.revisions import MIGRATIONS, is_old
from app.registry.tables import idempotency, identity, keys, metadata
from app.rights import Role
from app.settings import ConfigError
from hsm import KeyNotFound, KeySpec
from scripts.throwaway import make_registry
from tests.shared.accounts import nobody, shared_directory
from tests.shared.drivers import result_of
from tests.shared.waiting import ROW_LOCK

TURKISH = Path("/usr/share/i18n/locales/tr_TR")
PUBLIC_JWK = {"kty": "OKP", "crv": "Ed25519", "x": "AA"}
PAIR = Key(
    kid=uuid4(),
    kid_public=uuid4(),
    owner="owner",
    spec=KeySpec(kty="OKP", alg="EdDSA", crv="Ed25519"),
    origin=Origin.GENERATED,
    residency=Residency.TOKEN,
    state=State.ACTIVE,
    public_jwk=PUBLIC_JWK,
)
SECRET = Key(
    kid=uuid4(),
    kid_public=None,
    owner="owner",
    spec=KeySpec(kty="oct", alg="A256GCM", bits=256),
    origin=Origin.UNWRAPPED,
    residency=Residency.PROCESS,
    state=State.COMPROMISED,
)


@pytest.mark.parametrize("key", [PAIR, SECRET], ids=["pair", "secret"])
def test_a_key_is_found_as_it_was_inserted(registry, key):
    registry.insert(key)
    assert registry.find(key.kid) == key


def test_a_pair_is_found_by_its_public_kid(registry):
    registry.insert(PAIR)
    assert registry.find(PAIR.kid_public) == PAIR


def test_an_alias_is_that_of_one_key_until_that_is_destroyed(registry):
    named, other = replace(PAIR, alias="A"), replace(SECRET, alias="A")
    registry.insert(named)
    with pytest.raises(AliasTaken):
        registry.insert(other)
    registry.insert(replace(other, alias="a"))  # another name
    with pytest.raises(AliasTaken):
        registry.change(replace(other, alias="a"), alias="A")
    assert registry.find_for("token:a", "mac", "A") == (named, False, False)
    found = registry.find_all_for("token:a", ["A", "a", str(named.kid_public)])
    assert {name: key.kid for name, (key, _) in found.items()} == {
        "A": named.kid,
        "a": other.kid,
        str(named.kid_public): named.kid,
    }
    registry.mark_destroyed(named.kid)  # its row may stay for long
    assert registry.change(replace(other, alias="a"), alias="A")
    registry.abandon(other.kid)
    registry.insert(replace(PAIR, kid=uuid4(), kid_public=None, alias="A"))


def test_a_key_that_the_version_before_has_made_has_no_alias(registry):
    registry.insert(SECRET)
    known = [column for column in keys.columns if column.name != "alias"]
    with registry._database.writing() as connection:
        [row] = connection.execute(select(*known)).mappings()
        for kid in (uuid4(), uuid4()):
            connection.execute(insert(keys).values({**row, "kid": str(kid)}))
    assert registry.find(kid) == replace(SECRET, kid=kid)


def test_a_kid_without_a_row_is_not_found(registry):
    registry.insert(PAIR)
    assert registry.find(uuid4()) is None


@pytest.mark.parametrize(
    "url",
    ["sqlite:///{}/absent/registry.db", "postgresql+psycopg://test@/registry?host={}"],
    ids=["sqlite", "postgresql"],
)
def test_a_registry_that_cannot_be_opened_is_unavailable(tmp_path, url):
    registry = Registry(url.format(tmp_path), host="host")
    with pytest.raises(RegistryUnavailable):
        registry.find(uuid4())
    with pytest.raises(RegistryUnavailable):
        registry.insert(PAIR)


def test_a_registry_without_its_table_is_unavailable_and_recovers(database_url):
    registry = Registry(database_url, host="host")
    with pytest.raises(RegistryUnavailable):
        registry.find(uuid4())
    with pytest.raises(RegistryUnavailable):
        registry.insert(PAIR)
    migrate(database_url)
    assert registry.find(uuid4()) is None
    registry._database.engine.dispose()


def test_the_schema_is_made_once_by_however_many_at_a_time(database_url):
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: result_of({}, migrate, database_url), range(3)))
    registry = Registry(database_url, host="host")
    registry.insert(PAIR)
    migrate(database_url)
    assert registry.find(PAIR.kid) == PAIR
    registry._database.engine.dispose()


def test_the_migrations_make_the_tables_that_the_queries_know(registry):
    with registry._database.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []


OPEN = {
    "sqlite": "PRAGMA wal_checkpoint(TRUNCATE)",  # busy, if a read is open
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' "
    "AND datname = current_database()",
}


def test_no_read_stays_open_behind_a_lookup(registry):
    registry.insert(PAIR)
    registry.find(PAIR.kid)
    with registry._database.engine.connect() as connection:
        assert connection.execute(text(OPEN[connection.dialect.name])).one()[0] == 0


def test_a_thread_has_one_connection_for_all_its_lookups(postgresql):
    url = postgresql.registry()
    registry = Registry(url, host="host")
    for _ in range(3):
        registry.find(PAIR.kid)
        registry.find_for("token:a", "mac", str(PAIR.kid))
        registry.credentials.find("0000")
    other = Registry(url, host="host")
    with other._database.engine.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        assert connection.execute(text(query)).scalar_one() == 1 + 1
    other._database.engine.dispose()


@pytest.mark.promise
def test_a_row_that_somebody_holds_is_not_waited_for_long(registry):
    registry.insert(PAIR)
    with registry._database.writing() as connection:
        connection.execute(keys.update().values(owner="other"))
        started = time.monotonic()
        with pytest.raises(RegistryUnavailable):
            registry.mark_destroyed(PAIR.kid)
        assert 1 < time.monotonic() - started < ROW_LOCK.seconds
        assert registry.find(PAIR.kid) == PAIR  # a read waits for nobody


class Waiting:
    """The time of whoever waits for a file, which ``other`` leaves after 500 looks."""

    def __init__(self, other: sqlite3.Connection) -> None:
        self.pauses: list[float] = []
        self.other = other

    def monotonic(self) -> float:
        """Return the seconds that were waited."""
        return sum(self.pauses)

    def sleep(self, seconds: float) -> None:
        """Wait no time, and have the other leave if it is to."""
        self.pauses.append(seconds)
        if len(self.pauses) == 500:
            self.other.execute("COMMIT")


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    """Somebody else who has the file of a registry."""
    path = tmp_path / "registry.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        it = Waiting(other)
        monkeypatch.setattr("app.registry.databases.sqlite.time", it)
        yield it


def test_who_waits_to_write_to_a_file_goes_on_to_look_as_often(tmp_path, waiting):
    """SQLite has whoever waits look ever less often: of many who write some have no turn."""
    registry = Registry(make_registry(tmp_path / "registry.db"), host="host")
    waiting.other.execute("BEGIN IMMEDIATE")
    registry.insert(PAIR)
    assert len(waiting.pauses) == 500
    assert 0 < max(waiting.pauses) <= 0.003
    registry._database.engine.dispose()


def test_who_finds_a_new_file_taken_waits(tmp_path, waiting):
    """SQLite does not, if two make it one whose readers need not wait."""
    waiting.other.execute("BEGIN EXCLUSIVE")
    with closing(sqlite3.connect(tmp_path / "registry.db", timeout=0)) as own:
        sqlite._set_durability(own, None)
        assert own.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert len(waiting.pauses) == 500


def test_a_budget_is_shared_exactly(registry):
    registry.insert(SECRET)
    most = 1000

    def reserve(_number: int) -> int:
        return registry.reserve_encryptions(SECRET.kid, 30, most=most)[0]

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(reserve, range(50))) == most
    assert registry.reserve_encryptions(SECRET.kid, 1, most=most)[0] == 0
    with pytest.raises(KeyNotFound):
        registry.reserve_encryptions(uuid4(), 1, most=most)


def test_grants_and_tags_come_in_the_order_of_their_code_points(registry):
    registry.insert(SECRET)
    assert registry.tags.publish(SECRET.kid, SECRET.owner, Publication(most=1, tag="b"))
    registry.tags.add(SECRET.kid, ["a", "B", "ä", "b", "a_c", "a-b"])
    expected = ["B", "a", "a-b", "a_c", "b", "ä"]
    assert registry.tags.of(SECRET.kid) == expected
    assert registry.tags.of_all([SECRET.kid]) == {SECRET.kid: expected}
    for principal in ("token:b", "token:B", "*", "jwt:a"):
        registry.grants.put(SECRET.kid, principal, ["read", "mac"])
    granted = registry.grants.of(SECRET.kid)
    assert list(granted) == ["*", "jwt:a", "token:B", "token:b"]
    assert granted["*"] == ["mac", "read"]
    found = registry.find_for("token:b", "mac", str(SECRET.kid))
    registry.remove(SECRET.kid)
    assert found == (SECRET, True, True)
    assert registry.tags.of(SECRET.kid) == []
    assert registry.grants.of(SECRET.kid) == {}


def test_of_two_who_replace_a_grant_at_once_the_later_counts(registry):
    registry.insert(SECRET)
    sets, begun = (["encrypt", "sign"], ["decrypt", "sign"]), Barrier(2)

    def put(operations: list[str]) -> None:
        begun.wait()
        registry.grants.put(SECRET.kid, "token:b", operations)

    with ThreadPoolExecutor(2) as threads:
        for _ in range(20):
            list(threads.map(put, sets))
            assert registry.grants.of(SECRET.kid)["token:b"] in sets


@pytest.mark.parametrize("end", [Registry.mark_destroyed, Registry.remove])
def test_nothing_is_hung_on_a_key_that_is_gone_meanwhile(end, registry):
    registry.insert(PAIR)
    end(registry, PAIR.kid)
    with pytest.raises(KeyNotFound):
        registry.grants.put(PAIR.kid, "token:b", ["sign"])
    with pytest.raises(KeyNotFound):
        registry.tags.add(PAIR.kid, ["red"])
    with pytest.raises(KeyNotFound):
        registry.tags.publish(PAIR.kid, PAIR.owner, Publication(most=1))
    assert registry.grants.of(PAIR.kid) == {}
    assert registry.tags.of(PAIR.kid) == []


def test_a_request_is_remembered_once(registry):
    asked = IdempotentRequest(principal="token:a", request="r", fingerprint="f")
    answer = {"kid": "k", "alg": None}
    registry.insert_all([SECRET], Tagging(), request=asked, answer=lambda _: answer)
    with pytest.raises(AlreadyRequested):
        registry.insert_all([PAIR], Tagging(), request=asked, answer=lambda _: answer)
    assert registry.find(PAIR.kid) is None
    found = registry.idempotency.find(asked)
    assert (found.fingerprint, found.answer) == ("f", answer)


def is_undone_in_turkish(url: str) -> bool:
    """Add a row, and end before the end, where I is not the capital letter of i."""
    locale.setlocale(locale.LC_CTYPE, "tr_TR.UTF-8")
    registry = Registry(url, host="host")
    with suppress(InterruptedError), registry._database.writing() as connection:
        connection.execute(insert(identity).values(id="another"))
        raise InterruptedError
    with registry._database.reading() as connection:
        return "another" not in connection.scalars(select(identity.c.id)).all()


@pytest.mark.skipif(not TURKISH.exists(), reason="there is nothing to make a locale of")
def test_whatever_the_language_of_its_host_a_change_is_whole_or_none(tmp_path, registry_url):
    command = ["localedef", "-i", "tr_TR", "-f", "UTF-8", tmp_path / "tr_TR.UTF-8"]
    subprocess.run(command, check=True)
    assert result_of({"LOCPATH": str(tmp_path)}, is_undone_in_turkish, registry_url)


def test_of_many_requests_of_yesterday_a_few_are_forgotten_at_a_time(registry):
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    asked = IdempotentRequest(principal="token:a", request="499", fingerprint="f")
    old = {"principal": asked.principal, "fingerprint": "old", "answer": {}}
    rows = [
        old | {"request": f"{n}", "kid": f"{n}", "created_at": long_ago + timedelta(seconds=n)}
        for n in range(500)
    ]
    with registry._database.writing() as connection:
        connection.execute(insert(idempotency), rows)
    answer = {"kid": str(SECRET.kid)}
    registry.insert_all([SECRET], Tagging(), request=asked, answer=lambda _: answer)
    assert registry.idempotency.find(asked).fingerprint == asked.fingerprint
    with registry._database.reading() as connection:
        left = connection.scalars(select(idempotency.c.request)).all()
    assert set(left) == {f"{n}" for n in range(100, 500)}


def test_instants_are_those_that_were_stored(registry):
    registry.insert(PAIR)
    expiry = datetime(2040, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
    assert registry.change(PAIR, expires_at=expiry)
    key = registry.whole(PAIR.kid)
    assert (key.expires_at, key.expires_at.tzinfo) == (expiry, UTC)
    assert registry.find(PAIR.kid).expires_at == expiry
    token = api_tokens.make("token:a", roles=[Role.ADMIN], name=None, expires_at=expiry)[1]
    registry.credentials.add(token)
    assert registry.credentials.find(token.id) == token
    assert registry.credentials.revoke(token.id)
    assert registry.credentials.all()[0].refusal == "revoked"


def test_of_many_pairs_at_once_no_more_are_published_than_may_be(registry):
    publication, pairs = (
        Publication(most=3),
        [replace(PAIR, kid=uuid4(), kid_public=uuid4()) for _ in range(16)],
    )

    def add(pair: Key) -> bool:
        tagging = Tagging(publication=publication)
        [is_added] = registry.insert_all([pair], tagging, request=None, answer=lambda _: {})
        return bool(is_added)

    with ThreadPoolExecutor(8) as threads:
        added = list(threads.map(add, pairs))
    assert sum(added) == publication.most
    tagged = [pair.kid for pair in pairs if registry.tags.of(pair.kid)]
    assert tagged == [pair.kid for pair, is_added in zip(pairs, added, strict=True) if is_added]
    assert registry.tags.publish(tagged[0], PAIR.owner, publication)  # it is already
    left = next(pair.kid for pair in pairs if pair.kid not in tagged)
    assert not registry.tags.publish(left, PAIR.owner, publication)


def test_who_has_given_a_key_away_publishes_it_no_more(registry):
    registry.insert(PAIR)
    assert registry.tags.publish(PAIR.kid, PAIR.owner, Publication(most=1))
    assert registry.change(PAIR, ["jwks"], owner="token:b")
    assert registry.tags.of(PAIR.kid) == []
    with pytest.raises(KeyNotFound):
        registry.tags.publish(PAIR.kid, PAIR.owner, Publication(most=1))
    assert registry.tags.publish(PAIR.kid, "token:b", Publication(most=1))


LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
UNREADABLE = {
    "sqlite": "UPDATE keys SET expires_at = 'soon' WHERE kid = :kid",
    "postgresql": "UPDATE keys SET expires_at = 'infinity' WHERE kid = :kid",
}


def test_the_time_zone_of_the_database_makes_no_row_unreadable(registry):
    registry.insert(PAIR)
    assert registry.change(PAIR, expires_at=LATEST)
    assert registry.find(PAIR.kid).expires_at == LATEST


def spoil(registry: Registry, kid: UUID) -> None:
    with registry._database.writing() as connection:
        query = text(UNREADABLE[connection.dialect.name])
        connection.execute(query, {"kid": str(kid)})


def test_a_read_begins_nothing_that_has_to_be_ended(registry):
    registry.insert(PAIR)
    with registry._database.reading() as connection:
        assert connection.scalar(select(keys.c.kid)) == str(PAIR.kid)
        raw = connection.connection.dbapi_connection
        is_sqlite = isinstance(raw, sqlite3.Connection)
        assert not (raw.in_transaction if is_sqlite else raw.info.transaction_status)


def test_a_row_that_cannot_be_read_takes_no_other_with_it(registry, registry_url, caplog):
    pairs = [replace(PAIR, kid=uuid4(), kid_public=uuid4()) for _ in range(5)]
    publication = Publication(most=10)
    for pair in pairs:
        registry.insert(pair)
        registry.tags.publish(pair.kid, pair.owner, publication)
    bad, *good = sorted(pairs, key=lambda pair: pair.kid)
    spoil(registry, bad.kid)
    with pytest.raises(RegistryUnavailable):
        registry.find(bad.kid)
    assert [registry.find(pair.kid) for pair in good] == good
    kids = [str(pair.kid) for pair in pairs]
    with pytest.raises(RegistryUnavailable):
        registry.find_all_for("owner", kids)
    named, lost = registry.find_readable_for("owner", kids)
    assert (named.keys(), lost) == ({str(pair.kid) for pair in good}, {str(bad.kid)})
    page, _ = registry.pages.page_with_remarks(None, Filters(limit=2))
    assert [key.kid for key in page[:2]] == [pair.kid for pair in good[:2]]
    assert len(page) > 2  # there is another one
    listed, _ = registry.pages.page_with_remarks("owner", Filters())
    assert [key.kid for key in listed] == [pair.kid for pair in good]
    published = registry.tags.published(publication)
    assert {key.kid for key in published} == {pair.kid for pair in good}
    assert registry.specs().keys() == {pair.kid for pair in pairs}
    with transfer.snapshot(registry_url) as (_, rows):
        saved = {row["kid"] for table, row in rows if table == "keys"}
    assert saved == {str(pair.kid) for pair in good}
    assert f"a row of keys cannot be read: {bad.kid}" in caplog.text
    assert registry.mark_destroyed(bad.kid)


def test_an_api_token_that_cannot_be_read_is_neither_known_nor_unknown(tmp_path, caplog):
    url = f"sqlite:///{tmp_path}/registry.db"
    migrate(url)
    registry = Registry(url, host="host")
    made = [api_tokens.make("token:a", roles=[], name="a", expires_at=None)[1] for _ in range(2)]
    for token in made:
        registry.credentials.add(token)
    with registry._database.writing() as connection:
        spoiled = text("UPDATE tokens SET created_at = 'yesterday' WHERE id = :id")
        connection.execute(spoiled, {"id": made[0].id})
    with pytest.raises(RegistryUnavailable):
        registry.credentials.find(made[0].id)
    assert "a row cannot be read" in caplog.text
    assert made[0].id not in caplog.text
    other = registry.credentials.find(made[1].id)
    assert other
    assert other.principal == "token:a"


def test_a_backup_has_every_row_of_tables_of_several_batches(registry, registry_url, monkeypatch):
    monkeypatch.setattr(transfer, "_BATCH", 2)
    registry.insert(SECRET)
    granted = {(f"token:{name}", right) for name in "abc" for right in ("mac", "read")}
    for principal, operation in granted:
        operations = [*registry.grants.of(SECRET.kid).get(principal, []), operation]
        registry.grants.put(SECRET.kid, principal, operations)
    with transfer.snapshot(registry_url) as (_, rows):
        saved = [row for table, row in rows if table == "grants"]
    assert len(saved) == len(granted)
    assert {(row["principal"], row["operation"]) for row in saved} == granted


def test_a_backup_and_a_restoration_leave_tables_of_others_alone(registry, registry_url):
    registry.insert(SECRET)
    with registry._database.writing() as connection:
        connection.execute(text("CREATE TABLE others (line TEXT)"))
        connection.execute(text("INSERT INTO others VALUES ('theirs')"))
    with transfer.snapshot(registry_url) as (_, rows):
        saved = list(rows)
    assert {table for table, _ in saved} == {"keys"}
    transfer.replace_all(registry_url, saved)
    assert transfer.number_of_rows(registry_url) == 1
    with registry._database.reading() as connection:
        assert connection.scalar(text("SELECT count(*) FROM others")) == 1


def test_a_damaged_file_is_unavailable_to_whoever_has_it_open(tmp_path):
    path = tmp_path / "registry.db"
    migrate(f"sqlite:///{path}")
    registry = Registry(f"sqlite:///{path}", host="host")
    registry.insert(SECRET)
    assert registry.find(SECRET.kid) == SECRET
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.write(b"\xff" * 100)
    for act in (partial(registry.find, SECRET.kid), partial(registry.insert, PAIR)):
        with pytest.raises(RegistryUnavailable):
            act()
    registry._database.engine.dispose()


def test_a_postgresql_that_only_reads_is_unavailable_to_whoever_writes(postgresql):
    url = postgresql.registry()
    registry = Registry(f"{url}&options=-c default_transaction_read_only=on", host="host")
    with pytest.raises(RegistryUnavailable):
        registry.insert(PAIR)
    with pytest.raises(RegistryUnavailable):
        registry.mark_destroyed(PAIR.kid)
    assert registry.find(PAIR.kid) is None
    registry._database.engine.dispose()


def cause_of(act: Callable[[], object]) -> RegistryCause:
    with pytest.raises(RegistryUnavailable) as caught:
        act()
    return caught.value.cause


def test_an_older_schema_is_told(registry_url):
    registry = Registry(registry_url, host="host")
    registry.check()
    with registry._database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    assert cause_of(registry.check) == "schema"
    with registry._database.writing() as connection:
        connection.execute(text("ALTER TABLE keys RENAME TO gone"))
    for act in (registry.check, registry.specs, lambda: registry.insert(PAIR)):
        assert cause_of(act) == "schema"
    registry._database.engine.dispose()


def test_the_revisions_are_known_without_alembic(database_url):
    migrate(database_url)
    newest, *older = ScriptDirectory(str(MIGRATIONS)).walk_revisions()
    assert revision_at(database_url) == (Age.CURRENT, newest.revision, newest.revision)
    assert not is_old(newest.revision)
    assert older
    for script in older:
        assert compared(script.revision).age is Age.OLD
        assert is_old(script.revision)
    assert is_old(None)
    assert not is_old("9999")  # made by a newer version, and good for this one as long as it works


@pytest.mark.parametrize("closed", ["registry.db", "."])
def test_a_file_that_may_not_be_read_is_told(closed):
    with shared_directory() as directory:
        url = f"sqlite:///{directory / 'registry.db'}"
        migrate(url)
        for path in directory.iterdir():
            path.chmod(0o777)
        registry = Registry(url, host="host")
        with nobody():
            assert registry.find(PAIR.kid) is None
        registry = Registry(url, host="host")
        (directory / closed).chmod(0)
        with nobody():
            assert cause_of(lambda: registry.find(PAIR.kid)) == "permission"
            assert cause_of(lambda: registry.insert(PAIR)) == "permission"
            assert closed != "." or cause_of(lambda: revision_at(url)) == "permission"
        (directory / closed).chmod(0o777)


def test_a_role_without_rights_is_told(postgresql):
    url = postgresql.registry()
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS nobody"))
        connection.execute(text("CREATE ROLE nobody LOGIN"))
    engine.dispose()
    registry = Registry(url.replace("test@", "nobody@"), host="host")
    assert cause_of(lambda: registry.find(PAIR.kid)) == "permission"
    assert cause_of(lambda: registry.insert(PAIR)) == "permission"
    registry._database.engine.dispose()


def test_a_file_that_is_not_there_is_told_and_not_made(tmp_path):
    registry = Registry(f"sqlite:///{tmp_path / 'registry.db'}", host="host")
    assert cause_of(lambda: registry.find(PAIR.kid)) == "missing"
    assert cause_of(lambda: registry.insert(PAIR)) == "missing"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_moved_away_is_used_no_more(tmp_path):
    path = tmp_path / "registry.db"
    migrate(f"sqlite:///{path}")
    registry = Registry(f"sqlite:///{path}", host="host")
    registry.insert(SECRET)
    assert registry.find(SECRET.kid) == SECRET
    (tmp_path / "elsewhere").mkdir()
    there = list(tmp_path.glob("registry.db*"))
    for each in there:
        each.rename(tmp_path / "elsewhere" / each.name)
    assert cause_of(lambda: registry.find(SECRET.kid)) == "missing"
    assert cause_of(lambda: registry.insert(PAIR)) == "missing"
    assert list(tmp_path.glob("registry.db*")) == []
    for each in there:
        (tmp_path / "elsewhere" / each.name).rename(each)
    assert registry.find(SECRET.kid) == SECRET
    assert registry.find(PAIR.kid) is None
    registry.insert(PAIR)
    registry._database.engine.dispose()


def test_a_driver_that_is_missing_is_named_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for url in ("postgresql+psycopg://user:secret@host/name", "postgresql+nosuch://u:secret@h/n"):
        with pytest.raises(ConfigError) as caught:
            Registry(url, host="host")
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


# --- What is read of a million keys ---


@pytest.mark.parametrize("query", [FIND, FIND_FOR, FIND_ALL_FOR], ids=["one", "granted", "many"])
def test_a_kid_that_is_found_is_not_looked_for_as_a_public_one(registry, query):
    """Its index is as large as that of the kids, and nobody has read its pages."""
    database = registry._database
    if database.engine.dialect.name != "postgresql":
        pytest.skip("SQLite does not say what it has not done")
    registry.insert(PAIR)
    for kid, is_looked_for in ((PAIR.kid, False), (PAIR.kid_public, True)):
        asked = {"kid": str(kid), "kids": [str(kid)], "number": 1}
        named = query.params(**asked, principal="p", operation="sign")
        sql = named.compile(database.engine, compile_kwargs={"literal_binds": True})
        with database.reading() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN ANALYZE {sql}").scalars().all()
        begins = next(number for number, line in enumerate(plan) if "kid_public)" in line)
        branch = "\n".join(plan[begins - 3 : begins + 1])
        assert ("never executed" not in branch) == is_looked_for, "\n".join(plan)
