"""Whatever stands in one row, lists have all others: nonsense in one column after the other."""

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Table, text
from sqlalchemy.exc import DBAPIError

from app.auth import api_tokens
from app.errors import RegistryUnavailable
from app.keys.catalogue import Catalogue
from app.keys.sets.description import describe_set
from app.registry import Key, Origin, Publication, Registry, Residency, State, Tagging, transfer
from app.registry.keysets.records import KeySet, Policy
from app.registry.tables import keys, keysets, tokens, uses, versions
from app.registry.uses import today, write_use
from app.rights import Principal, Role
from app.schemas.catalogue import ListResponse
from app.schemas.keysets import KeySetResponse
from hsm import Blob, KeySpec, Storage

ADMIN = Principal("token:admin", {Role.ADMIN})
LATER = datetime.now(UTC) + timedelta(days=1)
DAY = timedelta(days=1)
POLICY = Policy(every=30 * DAY, publish_ahead=DAY, retain=7 * DAY)
PUBLICATION = Publication(most=50)
VALUES = ("'none'", "''", "-1", "9e18", "NULL", "'[1]'", "'{}'", "'0000-00-00'")
ON_POSTGRESQL = ("'infinity'", "'-infinity'", "'0044-03-15 BC'")

PAIR = Key(
    kid=UUID(int=1),
    kid_public=UUID(int=2),
    owner="token:owner",
    spec=KeySpec(kty="EC", alg="ES256", crv="P-256"),
    origin=Origin.GENERATED,
    residency=Residency.TOKEN,
    public_jwk={"kty": "EC", "crv": "P-256", "x": "", "y": ""},
)
SECRET = replace(
    PAIR,
    kid_public=None,
    spec=KeySpec(kty="oct", alg="A256GCM", bits=256),
    public_jwk=None,
    storage=Storage.WRAPPED,
    blob=Blob(kek=uuid4(), octets=b"blob", seal=b"seal"),
)


class Found(NamedTuple):
    """What is listed in the end: of keys, of those that are published, of key sets and tokens."""

    keys: set[str]
    published: set[str]
    keysets: set[str]
    due: set[str]
    tokens: set[str]
    gone: set[str]


def new(registry: Registry, key: Key, **members: Any) -> str:
    """Make a key that has all that a key may have."""
    kid_public = uuid4() if key.kid_public else None
    key = replace(key, kid=uuid4(), kid_public=kid_public, name="n", expires_at=LATER, **members)
    tagging = Tagging(tags=frozenset("x"), publication=PUBLICATION if kid_public else None)
    registry.insert_all([key], tagging, request=None, answer=lambda _: {})
    with registry._database.writing() as connection:
        write_use(connection, [str(key.kid)], today())
    return str(key.kid)


def deleted(registry: Registry) -> str:
    """Make one whose time is over."""
    kid = new(registry, SECRET, state=State.ACTIVE)
    assert registry.postponed.begin(UUID(kid), datetime.now(UTC) - DAY)
    return kid


def made(registry: Registry, name: str) -> str:
    """Make a key set with which something is to be done."""
    key = replace(PAIR, kid=uuid4(), kid_public=uuid4())
    registry.insert(key)
    past = datetime.now(UTC) - DAY
    members: dict[str, Any] = {"rotates_at": past, "due_at": past, "destroy_after": DAY}
    keyset = KeySet(
        id=uuid4(),
        name=name,
        owner=key.owner,
        spec=key.spec,
        policy=POLICY,
        is_published=True,
        current_kid=key.kid,
        **members,
    )
    registry.keysets.steps.add(keyset, key.ref, None, ["x"])
    return name


def api_token(registry: Registry) -> str:
    token = api_tokens.make("token:a", roles=[], name="a", expires_at=LATER)[1]
    registry.credentials.add(token)
    return token.id


def listed(registry: Registry) -> Found:
    """Return what everything that is about many finds."""
    catalogue, now = Catalogue(registry, PUBLICATION), datetime.now(UTC)
    page = catalogue.page(ADMIN, {"limit": 200})
    catalogue.page(ADMIN, {"limit": 200, "unused_since": date(2030, 1, 1)})
    sets = registry.keysets.page(None, after="", limit=200)
    shown = [KeySetResponse().dump(describe_set(keyset, [])) for keyset in sets]
    due: Collection[KeySet] = ()
    outlook = registry.keysets.outlook(most_encryptions=2**31)
    if outlook.due_at is not None and outlook.due_at <= now:
        due = registry.keysets.due(now, most_encryptions=2**31)
    registry.census.groups(idle_since=today())
    registry.census.tallies.by_state()
    registry.keks.in_use()
    registry.unfinished(here_before=now, before=now)
    for ask in (registry.census.next_expiry, registry.credentials.next_expiry):
        try:
            ask(now)
        except RegistryUnavailable:
            continue  # it is only shown, and what was shown before stays
    return Found(
        keys={key["kid"] for key in ListResponse().dump(page)["keys"]},
        published={jwk["kid"] for jwk in catalogue.published({})},
        keysets={one["name"] for one in shown},
        due={keyset.name for keyset in due},
        tokens={token.id for token in registry.credentials.all()},
        gone={str(kid) for kid in registry.postponed.overdue(others_before=datetime.now(UTC))},
    )


@pytest.fixture
def good(registry: Registry) -> Found:
    """What is to be listed, whatever else there is."""
    for make in (PAIR, SECRET):
        new(registry, make, state=State.ACTIVE)
    deleted(registry)
    made(registry, "m")
    api_token(registry)
    return listed(registry)


ROWS: dict[str, tuple[Table, Callable[[Registry], str]]] = {
    "pair": (keys, lambda registry: new(registry, PAIR, state=State.ACTIVE)),
    "secret": (keys, lambda registry: new(registry, SECRET, state=State.ACTIVE)),
    "deleted": (keys, deleted),
    "use": (uses, lambda registry: new(registry, SECRET, state=State.ACTIVE)),
    "set": (keysets, lambda registry: made(registry, "a")),
    "token": (tokens, api_token),
    "version": (versions, lambda registry: str(again(registry, made(registry, "b")).current_kid)),
}


def again(registry: Registry, name: str) -> KeySet:
    keyset = registry.keysets.find(name)
    assert keyset is not None
    return keyset


def failure(
    registry: Registry, row: tuple[Table, str], column: str, value: str, good: Found
) -> str | None:
    """Put ``value`` into a row; return what is wrong then, and put back what was there."""
    table, name = row
    engine, key = registry._database.engine, next(iter(table.primary_key)).name
    where = f"WHERE {key} = :name"
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS saved"))
        connection.execute(text(f"CREATE TABLE saved AS SELECT * FROM {table}"))
    try:
        with engine.begin() as connection:
            spoil = f"UPDATE {table} SET {column} = {value} {where}"
            assert connection.execute(text(spoil), {"name": name}).rowcount == 1
    except DBAPIError:
        return None  # the database knows better
    try:
        lost = [before - now for before, now in zip(good, listed(registry), strict=True)]
    except Exception as error:  # noqa: BLE001  # all of them are to be seen
        return f"{spoil}: {error!r}"
    finally:
        heal = f"UPDATE {table} SET {column} = (SELECT {column} FROM saved {where}) {where}"
        with engine.begin() as connection:
            connection.execute(text(heal), {"name": name})
    return f"{spoil}: {lost}" if any(lost) else None


WORST = (
    ("pair", "crv", "'none'"),
    ("pair", "public_jwk", "'[1]'"),
    ("pair", "certificates", "'[1]'"),
    ("pair", "state", "'none'"),
    ("pair", "destroy_after", "9000000000000000000"),
    ("secret", "alg", "'none'"),
    ("secret", "kek", "'none'"),
    ("deleted", "kty", "'none'"),
)
WORST_ON = {
    "sqlite": (
        ("use", "day", "'none'"),
        ("pair", "bits", "'none'"),
        ("pair", "created_at", "-1"),
        ("set", "rotates_at", "''"),
        ("set", "every", "'none'"),
        ("version", "number", "'none'"),
        ("token", "expires_at", "'none'"),
    ),
    "postgresql": (
        ("use", "day", "'infinity'"),
        ("set", "rotates_at", "'-infinity'"),
        ("set", "every", "9000000000000000000"),
        ("token", "expires_at", "'infinity'"),
    ),
}


def test_what_is_no_value_takes_no_other_row_with_it(registry, good):
    rows = {name: (table, make(registry)) for name, (table, make) in ROWS.items()}
    worst = (*WORST, *WORST_ON[registry._database.engine.dialect.name])
    failed = [failure(registry, rows[name], column, value, good) for name, column, value in worst]
    assert list(filter(None, failed)) == []


@pytest.mark.long
@pytest.mark.parametrize(("table", "make"), ROWS.values(), ids=ROWS)
def test_no_value_of_one_row_takes_another_with_it(table, make, registry, good):
    row = table, make(registry)
    is_postgresql = registry._database.engine.dialect.name == "postgresql"
    values = VALUES + (ON_POSTGRESQL if is_postgresql else ())
    failed = [
        failure(registry, row, column.name, value, good)
        for column in table.columns
        if not column.primary_key
        for value in values
    ]
    assert list(filter(None, failed)) == []


def test_what_is_no_day_or_number_is_not_restored(registry, registry_url):
    bad, other = (new(registry, SECRET, state=State.ACTIVE) for _ in range(2))
    day = "'infinity'" if registry._database.engine.dialect.name == "postgresql" else "'none'"
    with registry._database.engine.begin() as connection:
        connection.execute(text(f"UPDATE uses SET day = {day} WHERE kid = :kid"), {"kid": bad})
    assert transfer.days_of_use(registry_url).keys() == {other}
    assert transfer.encryptions(registry_url).keys() == {bad, other}
