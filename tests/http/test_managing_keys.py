"""Keys are listed, read, changed, tagged and published."""

# fixtures

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sqlalchemy import event, insert, update

from app.config import Config
from app.jwk import write_public
from app.registry import Filters, Key, Origin, Registry, Residency, State, counts, migrate
from app.registry.databases.engines import engine_of
from app.registry.tables import grants, idempotency, keys, tags
from hsm import KeySpec, PublicKey, Storage
from scripts.throwaway import make_token
from tests.shared.api import Answer, Api, b64u
from tests.shared.callers import Callers, token_for
from tests.shared.waiting import until

BAD_REQUEST = (400, "bad_request")
DENIED = (403, "forbidden")
FAILURE = (422, "crypto_failure")
MAC = {"kty": "oct", "alg": "HS256"}
PAIR = {"kty": "EC", "crv": "P-256", "alg": "ES256"}


@pytest.fixture(scope="module")
def callers(callers_of_each: Callers) -> Callers:
    """Each claim here is one of the registry, too."""
    return callers_of_each


@pytest.fixture
def someone(callers: Callers) -> Api:
    """A caller who has no keys yet."""
    return Api.over_http(callers.url, bearer=token_for(callers.environment, f"token:{uuid4()}"))


@pytest.fixture
def registry(callers: Callers) -> Iterator[Registry]:
    """The registry of the service, for what is not told or done by HTTP."""
    registry = Registry(Config.from_env(callers.environment).registry_url, host="test")
    yield registry
    registry._database.engine.dispose()


def pages(api: Api, **query: Any) -> Iterator[list[str]]:
    after: dict[str, str] = {}
    while True:
        body = api.get("/keys", params=query | after).body
        yield [key["kid"] for key in body["keys"]]
        if body["after"] is None:
            return
        after = {"after": body["after"]}


def change(api: Api, kid: str, **members: Any) -> Any:
    return api.request("PATCH", f"/keys/{kid}", json=members)


def at(**span: float) -> str:
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


# --- Lists ---


def test_a_list_has_each_key_once_and_in_one_order(someone):
    made = sorted(someone.create(**MAC)["kid"] for _ in range(5))
    for limit in (1, 2, 5, 200):
        found = list(pages(someone, limit=limit))
        assert [kid for page in found for kid in page] == made
        assert all(len(page) <= limit for page in found)


def test_a_list_shows_what_the_caller_may_read_and_nothing_else(callers, someone):
    own = someone.create(**MAC)["kid"]
    readable, usable, public = (callers.alice.create(**MAC)["kid"] for _ in range(3))
    name = someone.get(f"/keys/{own}").body["owner"]
    for kid, grantee, operation in (
        (readable, name, "read"),
        (usable, name, "mac"),
        (public, "*", "read"),
    ):
        path = f"/keys/{kid}/grants/{grantee}"
        assert callers.alice.request("PUT", path, json={"operations": [operation]}).status == 200
    listed = {kid for page in pages(someone, limit=200) for kid in page}
    assert listed == {own, readable, public}
    everything = {kid for page in pages(callers.auditor, limit=200) for kid in page}
    assert {own, readable, usable, public} <= everything
    callers.alice.request("DELETE", f"/keys/{public}/grants/*")
    assert {kid for page in pages(someone, limit=200) for kid in page} == {own, readable}


def test_a_list_is_narrowed_by_every_filter(someone):
    mac, pair = someone.create(**MAC)["kid"], someone.create(**PAIR)["kid"]
    ended, over = someone.create(**MAC)["kid"], someone.create(**MAC)["kid"]
    change(someone, ended, state="compromised")
    change(someone, over, expires=at(seconds=-1))
    someone.post(f"/keys/{pair}/tags", {"tags": ["blue"]})

    def found(**query: Any) -> set[str]:
        return {kid for page in pages(someone, limit=1, **query) for kid in page}

    assert found(kty="EC") == found(alg="ES256") == found(tag="blue") == {pair}
    assert found(state="active") == {mac, pair}
    assert found(state="deactivated") == {over}
    assert found(state="compromised") == {ended}
    assert found(state="compromised", kty="EC") == set()
    owner = someone.get(f"/keys/{mac}").body["owner"]
    assert found(owner=owner) == {mac, pair, ended, over}
    assert found(owner=owner, tag="blue", state="active", kty="EC", alg="ES256") == {pair}
    assert found(owner="token:alice") == set()


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "201"},
        {"limit": "-1"},
        {"limit": "ten"},
        {"limit": "\u0661"},
        {"limit": "9" * 5000},
        {"after": "!"},
        {"after": "_w"},
        {"after": "AA"},
        {"after": "a2lk"},
        {"state": "pending"},
        {"state": "destroyed"},
        {"tag": ""},
        {"tag": "a\0b"},
        {"owner": "\0"},
        {"kty": "\0"},
    ],
)
def test_a_query_that_means_nothing_is_refused(someone, query):
    assert someone.get("/keys", params=query).refusal == BAD_REQUEST


def fill(url: str, count: int) -> None:
    """Add rows without keys: the list never asks the token."""
    engine = engine_of(url, is_maintenance=True)  # a service would wait for this no longer
    now = datetime.now(UTC)
    rows = [
        {
            "kid": str(uuid4()),
            "owner": f"token:{number % 2}",
            "kty": "oct",
            "alg": "HS256" if number % 4 else "HS512",
            "origin": "generated",
            "residency": "token",
            "state": "active",
            "storage": "wrapped",
            "kek": str(UUID(int=number % 20)),
            "blob": b"blob",
            "seal": b"seal",
            "host": "test",
            "created_at": now,
            "changed_at": now,
        }
        for number in range(count)
    ]
    with engine.begin() as connection:
        connection.execute(insert(keys), rows)
        kids = [{"kid": row["kid"]} for row in rows]
        connection.execute(
            insert(grants),
            [kid | {"principal": "token:reader", "operation": "read"} for kid in kids],
        )
        connection.execute(insert(tags), [kid | {"tag": "t", "tagged_at": now} for kid in kids])
        connection.exec_driver_sql("ANALYZE")  # as PostgreSQL does by itself, later
    engine.dispose()


@contextmanager
def statements_of(registry: Registry) -> Iterator[list[tuple[str, Any]]]:
    """Note the statements, and their parameters, that a ``with`` block executes."""
    noted: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        noted.append((statement, parameters))

    engine = registry._database.engine
    event.listen(engine, "before_cursor_execute", note)
    yield noted
    event.remove(engine, "before_cursor_execute", note)


def cost_of_a_page(registry: Registry, reader: str | None, filters: Filters) -> int:
    """Return how much a page costs, in hundreds of SQLite's instructions or PostgreSQL's pages."""
    with statements_of(registry) as statements:
        assert len(registry.pages.page_with_remarks(reader, filters)[0]) == filters.limit + 1
    statement, parameters = statements[0]
    return cost_of(registry, statement, parameters)


def cost_of(registry: Registry, statement: str, parameters: Any) -> int:
    """Return the same of one statement."""
    with registry._database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
            [told] = connection.exec_driver_sql(explain, parameters).scalar_one()
            return int(told["Plan"]["Shared Hit Blocks"] + told["Plan"]["Shared Read Blocks"])
        steps: list[None] = []
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(lambda: steps.append(None), 100)
        connection.exec_driver_sql(statement, parameters).all()
        driver.set_progress_handler(None, 0)
        return len(steps)


def clean(registry: Registry) -> None:
    """Have PostgreSQL forget rows that are gone, as it does by itself, later."""
    autocommit = registry._database.engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        connection.exec_driver_sql("VACUUM")


LISTS = {
    "all": (None, Filters(limit=20)),
    "all, from the middle": (None, Filters(limit=20, after="8")),
    "own": ("token:1", Filters(limit=20)),
    "granted": ("token:reader", Filters(limit=20)),
    "by kty": (None, Filters(limit=20, kty="oct")),
    "by alg": (None, Filters(limit=20, alg="HS512")),
    "by state": (None, Filters(limit=20, state=State.ACTIVE)),
    "by owner": (None, Filters(limit=20, owner="token:0")),
    "by tag": (None, Filters(limit=20, tag="t")),
    "own by tag": ("token:1", Filters(limit=20, tag="t")),
    "own by alg": ("token:1", Filters(limit=20, alg="HS256")),
}


# PostgreSQL reads a small table as a whole, and rightly.
COUNTS = {"sqlite": (400, 4000), "postgresql": (2000, 8000)}
AT_ONCE = 1000  # between two turns of the janitor


@pytest.fixture(scope="module", params=COUNTS)
def many(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[int, Registry]]:
    """Registries with few and with many keys."""
    registries = {}
    for count in COUNTS[request.param]:
        url = f"sqlite:///{tmp_path_factory.mktemp('many')}/registry.db"
        if request.param == "postgresql":
            url = request.getfixturevalue("postgresql").empty()
        migrate(url)
        registry = registries[count] = Registry(url, host="test")
        for start in range(0, count, AT_ONCE):
            fill(url, min(AT_ONCE, count - start))
            registry.census.tallies.merge()
            clean(registry)
    yield registries
    for registry in registries.values():
        registry._database.engine.dispose()


@pytest.mark.parametrize("name", LISTS)
def test_a_page_costs_the_same_however_many_keys_there_are(many, name):
    few, lots = (cost_of_a_page(registry, *LISTS[name]) for registry in many.values())
    assert lots <= 2 * few + 5


READS_ALL = re.compile("SCAN (keys|grants)(?!.*INDEX)|Seq Scan on (keys|grants|tags)")
EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN"}


@pytest.mark.parametrize("name", LISTS)
def test_a_page_is_read_from_an_index(many, name):
    registry = many[max(many)]
    with statements_of(registry) as statements:
        registry.pages.page_with_remarks(*LISTS[name])
    statement, parameters = statements[0]
    with registry._database.engine.connect() as connection:
        explain = f"{EXPLAIN[connection.dialect.name]} {statement}"
        steps = [row[-1] for row in connection.exec_driver_sql(explain, parameters)]
    assert any(re.search("(USING|using|Index).* (INDEX|[a-z]+_)", step) for step in steps), steps
    assert not any(READS_ALL.search(step) for step in steps), "\n".join(steps)


def test_a_page_is_two_statements(many):
    registry = many[max(many)]
    with statements_of(registry) as statements:
        found, _ = registry.pages.page_with_remarks(None, Filters(limit=7))
    assert len(found) == 8
    assert len(statements) == 2


COUNTED: dict[str, Callable[[Registry], object]] = {
    "the page /status": lambda registry: registry.census.groups(idle_since=date(2020, 1, 1)),
    "a quota": lambda registry: registry.census.owned_by("token:1", at_most=50),
    "the doctor's number of keys": lambda registry: registry.census.tallies.total(),
    "key-encryption keys": lambda registry: registry.census.tallies.by_kek(),
    "the last change": lambda registry: registry.last_change(),
    "keys on the token": lambda registry: registry.specs(storages=[Storage.TOKEN]),
}


@pytest.mark.parametrize("name", COUNTED)
def test_to_count_costs_the_same_however_many_keys_there_are(many, name, monkeypatch):
    monkeypatch.setattr(counts, "SAMPLE", 100)
    costs = []
    for registry in many.values():
        with statements_of(registry) as statements:
            COUNTED[name](registry)
        costs.append(sum(cost_of(registry, *statement) for statement in statements))
    few, lots = costs
    assert lots <= 2 * few + 5


# --- One key ---


def test_a_key_is_described_whole(callers):
    before = datetime.now(UTC)
    pair = callers.alice.create(kty="RSA", alg="PS256", bits=2048)
    key = callers.alice.get(f"/keys/{pair['kid']}").body
    assert pair.pop("published")
    assert pair.pop("bits") == key["size"]
    assert pair.items() <= key.items()
    assert (key["size"], key["state"], key["owner"]) == (2048, "active", "token:alice")
    assert (key["tags"], key["name"], key["expires"]) == (["jwks"], None, None)
    assert (key["deactivated"], key["origin"], key["residency"]) == (None, "generated", "token")
    assert key["last_used"] is None
    for name in ("created", "activated"):
        assert before <= datetime.fromisoformat(key[name]) <= datetime.now(UTC)
        assert key[name].endswith("Z")
    assert set(key["jwk"]) == {"kty", "n", "e", "kid", "use", "alg"}
    assert key["jwk"]["kid"] == pair["kid_public"]
    assert callers.alice.get(f"/keys/{pair['kid_public']}").body == key


@pytest.mark.parametrize(
    ("members", "size", "origin", "residency"),
    [
        (MAC, 256, "generated", "token"),
        ({"kty": "oct", "alg": "A192GCM"}, 192, "generated", "token"),
        ({"kty": "EC", "crv": "P-521"}, 521, "generated", "token"),
        ({"kty": "OKP"}, 256, "generated", "token"),
        ({"kty": "oct", "alg": "HS256", "k": b64u(bytes(40))}, 320, "imported", "process"),
        (PAIR | {"d": b64u(bytes(31) + b"\7")}, 256, "imported", "process"),
    ],
)
def test_size_origin_and_residency_are_those_of_the_key(callers, members, size, origin, residency):
    kid = callers.alice.create(**members)["kid"]
    key = callers.alice.get(f"/keys/{kid}").body
    assert (key["size"], key["origin"], key["residency"]) == (size, origin, residency)
    assert ("jwk" in key) is (members["kty"] != "oct")
    assert not {"k", "d"} & set(key.get("jwk", key))


def test_an_unwrapped_key_says_so(callers):
    kid = callers.alice.shared(kty="RSA", alg="RSA-OAEP")["kid"]
    jwe = callers.alice.ok(
        "/encrypt", {"kid": kid, "alg": "RSA-OAEP", "enc": "A128GCM", "data": ""}
    )
    cek = callers.alice.ok("/keys/unwrap", jwe)["kid"]
    key = callers.alice.get(f"/keys/{cek}").body
    assert (key["origin"], key["residency"], key["size"]) == ("unwrapped", "token", 128)


@pytest.mark.parametrize(
    "members",
    [
        {"kty": "RSA"},
        PAIR,
        {"kty": "EC", "crv": "P-384"},
        {"kty": "EC", "crv": "P-521"},
        {"kty": "OKP"},
    ],
    ids=["RSA", "P-256", "P-384", "P-521", "Ed25519"],
)
def test_the_public_half_is_there_in_pem(callers, members):
    kid = callers.alice.shared(**members)["kid"]
    answer = callers.alice.get(f"/keys/{kid}/public.pem")
    assert answer.headers["Content-Type"].startswith("application/x-pem-file")
    key = load_pem_public_key(answer.content)
    assert isinstance(key, PublicKey)
    jwk = callers.alice.get(f"/keys/{kid}").body["jwk"]
    assert write_public(key).items() <= jwk.items()


def test_a_secret_key_has_no_public_half(callers):
    kid = callers.alice.create(**MAC)["kid"]
    assert callers.alice.get(f"/keys/{kid}/public.pem").refusal == FAILURE
    assert callers.bob.get(f"/keys/{kid}/public.pem").refusal == DENIED


# --- Changes ---


@pytest.fixture
def used(callers: Callers) -> Any:
    """A key of alice's, and what it has signed."""
    kid = callers.alice.create(**PAIR)["kid"]
    jws = callers.alice.ok("/sign", {"kid": kid, "alg": "ES256", "data": ""}) | {"data": ""}
    return kid, jws


def sign(api: Api, kid: str) -> Any:
    return api.post("/sign", {"kid": kid, "alg": "ES256", "data": ""})


@pytest.mark.parametrize("state", ["deactivated", "compromised"])
def test_a_key_that_is_not_active_verifies_and_does_not_sign(callers, used, state):
    kid, jws = used
    answer = change(callers.alice, kid, state=state)
    assert (answer.body["state"], answer.body["deactivated"] is not None) == (state, True)
    for _ in range(3):  # any worker
        assert sign(callers.alice, kid).refusal == FAILURE
        assert callers.alice.ok("/verify", jws)["valid"] is True


CHANGES = [
    (["active"], 200),
    (["deactivated"], 200),
    (["deactivated", "deactivated"], 200),
    (["deactivated", "active"], 200),
    (["deactivated", "compromised"], 200),
    (["compromised"], 200),
    (["compromised", "compromised"], 200),
    (["compromised", "active"], 422),
    (["compromised", "deactivated"], 422),
    (["deactivated", "compromised", "active"], 422),
    (["pending"], 400),
    (["destroyed"], 400),
    (["Active"], 400),
    ([1], 400),
]


@pytest.mark.parametrize(("states", "status"), CHANGES, ids=str)
def test_only_a_deactivated_key_comes_back(callers, states, status):
    kid = callers.alice.create(**MAC)["kid"]
    for state in states[:-1]:
        assert change(callers.alice, kid, state=state).status == 200
    assert change(callers.alice, kid, state=states[-1]).status == status


def test_a_key_that_comes_back_works(callers, used):
    kid, _ = used
    change(callers.alice, kid, state="deactivated")
    assert change(callers.alice, kid, state="active").body["deactivated"] is None
    assert sign(callers.alice, kid).status == 200


def test_a_key_is_deactivated_when_it_expires_without_anything_running(callers, used):
    kid, jws = used
    for seconds in (2, 20, 200):  # a busy machine may take longer to ask
        change(callers.alice, kid, expires=None)
        change(callers.alice, kid, state="active")
        expiry = datetime.now(UTC) + timedelta(seconds=seconds)
        answer = change(callers.alice, kid, expires=expiry.isoformat())
        found = answer.body["state"], sign(callers.alice, kid).status
        if datetime.now(UTC) < expiry:
            break
    assert found == ("active", 200)
    until(lambda: datetime.now(UTC) > expiry)
    assert sign(callers.alice, kid).refusal == FAILURE
    assert callers.alice.ok("/verify", jws)["valid"] is True
    key = callers.alice.get(f"/keys/{kid}").body
    assert (key["state"], key["deactivated"]) == ("deactivated", key["expires"])


def test_an_expired_key_comes_back_with_another_expiry_only(callers):
    kid = callers.alice.create(**PAIR)["kid"]
    assert change(callers.alice, kid, expires=at(seconds=-5)).body["state"] == "deactivated"
    assert change(callers.alice, kid, state="active").refusal == FAILURE
    assert change(callers.alice, kid, expires=at(days=1)).body["state"] == "deactivated"
    answer = change(callers.alice, kid, state="active")
    assert (answer.body["state"], sign(callers.alice, kid).status) == ("active", 200)
    assert change(callers.alice, kid, expires=None).body["expires"] is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2999-01-31T12:00:00Z", "2999-01-31T12:00:00Z"),
        ("2999-01-31T14:00:00.500+02:00", "2999-01-31T12:00:00.500000Z"),
        ("2999-01-31T12:00:00.1234567Z", "2999-01-31T12:00:00.123456Z"),
        ("2999-01-31T12:00:00.123456999999Z", "2999-01-31T12:00:00.123456Z"),
    ],
)
def test_an_instant_is_kept_in_utc(callers, given, kept):
    kid = callers.alice.create(**MAC)["kid"]
    assert change(callers.alice, kid, expires=given).body["expires"] == kept


@pytest.mark.parametrize(
    "expires",
    [
        "2999-01-31",
        "2999-01-31T12:00:00",
        "29990131T120000Z",
        "2999-02-30T00:00:00Z",
        "soon",
        "",
        32_500_000_000,
        True,
        "2999-01-31T12:00:00+25:00",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "9999-12-31T23:59:59Z",
        "9000-01-01T00:00:01Z",
        "0001-01-01T00:00:00Z",
        "2020-01-01T00:00:00Z",
        "2999-01-31T12:00:60Z",
        "2999-01-31T12:00:00.Z",
        "\u0662999-01-31T12:00:00Z",
    ],
)
def test_what_is_no_instant_is_refused(callers, expires):
    kid = callers.alice.create(**MAC)["kid"]
    assert change(callers.alice, kid, expires=expires).refusal == BAD_REQUEST


def test_a_key_has_a_name_for_people(callers):
    kid = callers.alice.create(**MAC)["kid"]
    assert change(callers.alice, kid, name="Rechnungen 2026 ✓").body["name"] == "Rechnungen 2026 ✓"
    assert change(callers.alice, kid).body["name"] == "Rechnungen 2026 ✓"
    assert change(callers.alice, kid, name=None).body["name"] is None
    for name in ("", "x" * 256, "a\nb", "a\0b", 1):
        assert change(callers.alice, kid, name=name).refusal == BAD_REQUEST


def test_only_owner_and_administrator_change_a_key(callers):
    kid = callers.alice.create(**MAC)["kid"]
    everything = ["encrypt", "decrypt", "sign", "verify", "mac", "unwrap", "read", "destroy"]
    callers.alice.request("PUT", f"/keys/{kid}/grants/*", json={"operations": everything})
    for name in ("bob", "auditor"):
        assert change(getattr(callers, name), kid, state="deactivated").refusal == DENIED
    assert change(callers.admin, kid, state="deactivated").status == 200
    callers.alice.request("DELETE", f"/keys/{kid}/grants/*")  # it is in everybody's list


# --- Tags ---


def test_tags_are_a_set(callers):
    kid = callers.alice.create(**MAC)["kid"]
    path = f"/keys/{kid}/tags"
    assert callers.alice.get(path).body == {"kid": kid, "tags": []}
    for _ in range(2):
        answer = callers.alice.post(path, {"tags": ["b", "a", "b"]})
        assert answer.body == {"kid": kid, "tags": ["a", "b"]}
    for _ in range(2):
        assert callers.alice.request("DELETE", path, json={"tags": ["b", "z"]}).body["tags"] == [
            "a"
        ]
    assert callers.alice.get(path).body["tags"] == ["a"]


@pytest.mark.parametrize(
    "tags",
    [
        None,
        "a",
        [""],
        ["_a"],
        [1],
        [None],
        {},
        ["a", "_b"],
        ["a\0"],
        ["x" * 256],
        [str(number) for number in range(101)],
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_what_is_no_tag_is_refused(callers, method, tags):
    kid = callers.alice.create(**MAC)["kid"]
    answer = callers.alice.request(method, f"/keys/{kid}/tags", json={"tags": tags})
    assert answer.refusal == BAD_REQUEST


def test_only_the_owner_changes_tags(callers):
    kid = callers.alice.create(**MAC)["kid"]
    callers.alice.request("PUT", f"/keys/{kid}/grants/token:bob", json={"operations": ["read"]})
    for name in ("bob", "admin", "auditor"):
        api = getattr(callers, name)
        assert api.get(f"/keys/{kid}/tags").status == 200
        for method in ("POST", "DELETE"):
            answer = api.request(method, f"/keys/{kid}/tags", json={"tags": ["x"]})
            assert answer.refusal == DENIED


# --- Idempotency ---


def repeat(api: Api, path: str, body: Any, key: str) -> Any:
    return api.post(path, body, headers={"Idempotency-Key": key})


IMPORT = {"kty": "oct", "alg": "HS256", "k": b64u(bytes(range(32)))}


@pytest.mark.parametrize("body", [MAC, PAIR, IMPORT], ids=["secret", "pair", "import"])
def test_a_repeated_creation_is_answered_as_the_first(callers, body):
    key = str(uuid4())
    first = repeat(callers.alice, "/keys", body, key)
    for _ in range(3):  # any worker
        again = repeat(callers.alice, "/keys", body, key)
        assert (again.status, again.body) == (200, first.body)
    assert repeat(callers.alice, "/keys", body, str(uuid4())).body["kid"] != first.body["kid"]
    assert repeat(callers.bob, "/keys", body, key).body["kid"] != first.body["kid"]


def test_a_creation_is_answered_again_when_the_end_of_its_key_has_come(callers):
    key = str(uuid4())
    body = MAC | {"expires": at(seconds=-58)}  # clocks may differ by a minute
    while (first := repeat(callers.alice, "/keys", body, key)).status == 400:
        body["expires"] = at(seconds=-58)
    until(lambda: callers.alice.post("/keys", body).status == 400)
    again = repeat(callers.alice, "/keys", body, key)
    assert (again.status, again.body) == (200, first.body)


def test_a_repeated_unwrapping_is_answered_as_the_first(callers):
    kid = callers.alice.shared(kty="RSA", alg="RSA-OAEP")["kid"]
    jwe = callers.alice.ok(
        "/encrypt", {"kid": kid, "alg": "RSA-OAEP", "enc": "A128GCM", "data": ""}
    )
    key = str(uuid4())
    first = repeat(callers.alice, "/keys/unwrap", jwe, key)
    assert repeat(callers.alice, "/keys/unwrap", jwe, key).body == first.body
    assert repeat(callers.alice, "/keys", jwe | MAC, key).refusal == REUSED


@pytest.mark.parametrize("is_general", [False, True], ids=["flattened", "general"])
def test_a_repeated_unwrapping_is_answered_though_its_key_is_gone(callers, is_general):
    kid, key = callers.alice.create(kty="oct", alg="A128KW")["kid"], str(uuid4())
    to = {"kid": kid, "alg": "A128KW"}
    form = {"serialization": "general", "recipients": [to]} if is_general else to
    jwe = callers.alice.ok("/encrypt", {**form, "enc": "A128GCM", "data": ""})
    first = repeat(callers.alice, "/keys/unwrap", jwe, key)
    callers.alice.delete(kid)
    again = repeat(callers.alice, "/keys/unwrap", jwe, key)
    assert (again.status, again.body) == (200, first.body)
    assert repeat(callers.alice, "/keys/unwrap", jwe, str(uuid4())).status == 404


REUSED = (422, "idempotency_key_reused")


def test_another_request_under_the_same_name_is_refused(callers):
    key = str(uuid4())
    repeat(callers.alice, "/keys", MAC, key)
    assert repeat(callers.alice, "/keys", PAIR, key).refusal == REUSED
    assert repeat(callers.alice, "/keys", MAC | {"alg": "HS512"}, key).refusal == REUSED


def test_a_failed_creation_may_be_tried_again(callers):
    key = str(uuid4())
    assert repeat(callers.alice, "/keys", {"kty": "nothing"}, key).refusal == BAD_REQUEST
    assert repeat(callers.alice, "/keys", MAC, key).status == 200


def test_requests_at_the_same_time_make_one_key(callers):
    key, bearer = str(uuid4()), token_for(callers.environment, "token:alice")

    def create(_: int) -> Answer:
        api = Api.over_http(callers.url, bearer=bearer)
        while (answer := repeat(api, "/keys", {"kty": "RSA"}, key)).status == 503:
            assert "is not answered yet" in answer.body["description"]  # it waited, and may again
        return answer

    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(create, range(6)))
    assert {answer.status for answer in answers} == {200}, answers
    assert len({answer.body["kid"] for answer in answers}) == 1


def test_a_repetition_names_no_key_that_has_been_destroyed(callers):
    key = str(uuid4())
    first = repeat(callers.alice, "/keys", MAC, key).body
    callers.alice.delete(first["kid"])
    answer = repeat(callers.alice, "/keys", MAC, key)
    assert answer.refusal == (404, "not_found")
    assert answer.body["description"] == "Key not found"
    assert repeat(callers.alice, "/keys", PAIR, key).refusal == REUSED


@pytest.mark.parametrize("key", ["", "x" * 256, "ä"])
def test_an_idempotency_key_that_is_none_is_refused(callers, key):
    answer = repeat(callers.alice, "/keys", MAC, key.encode("latin-1"))
    assert answer.refusal == BAD_REQUEST


def test_a_day_later_the_request_is_a_new_one(callers, registry):
    key = str(uuid4())
    first = repeat(callers.alice, "/keys", MAC, key).body["kid"]
    with registry._database.writing() as connection:
        yesterday = datetime.now(UTC) - timedelta(hours=24, seconds=1)
        connection.execute(
            update(idempotency).where(idempotency.c.kid == first).values(created_at=yesterday)
        )
    assert repeat(callers.alice, "/keys", PAIR, key).status == 200


def test_the_registry_keeps_no_hash_of_an_imported_key_alone(callers, registry):
    key = str(uuid4())
    kid = repeat(callers.alice, "/keys", IMPORT, key).body["kid"]
    with registry._database.reading() as connection:
        query = idempotency.select().where(idempotency.c.kid == kid)
        row = connection.execute(query).one()
    hashes = {
        hashlib.sha256(text).hexdigest()
        for text in (json.dumps(IMPORT).encode(), bytes(range(32)), IMPORT["k"].encode())
    }
    assert row.fingerprint not in hashes
    assert key not in str(row)


# --- Publishing ---


def published(api: Api, **narrowed_to: str) -> dict[str, Any]:
    answer = api.request("GET", "/.well-known/jwks.json", params=narrowed_to)
    return {key["kid"]: key for key in answer.body["keys"]}


def test_generated_pairs_that_sign_are_published_and_nothing_else(callers):
    everybody = Api.over_http(callers.url)
    pair, encrypting = callers.alice.create(**PAIR), callers.alice.shared(kty="RSA", alg="RSA-OAEP")
    imported = callers.alice.create(**PAIR, d=b64u(bytes(31) + b"\7"))
    assert pair["published"]
    assert not {"published"} & {*encrypting, *imported}
    keys = published(everybody)
    assert keys[pair["kid_public"]] == callers.alice.get(f"/keys/{pair['kid']}").body["jwk"]
    assert set(keys[pair["kid_public"]]) == {"kty", "crv", "x", "y", "use", "alg", "kid"}
    assert keys[pair["kid_public"]]["use"] == "sig"
    assert not {encrypting["kid_public"], imported["kid"]} & keys.keys()
    assert all(key["kty"] != "oct" for key in keys.values())


def test_the_tag_publishes_every_public_half_and_no_secret(callers):
    everybody = Api.over_http(callers.url)
    encrypting = callers.alice.create(kty="EC", crv="P-256", alg="ECDH-ES")
    secret = callers.alice.create(**MAC)
    imported = callers.alice.create(**PAIR, d=b64u(bytes(31) + b"\x09"))
    for key in (encrypting, secret, imported):
        path = f"/keys/{key['kid']}/tags"
        assert callers.alice.post(path, {"tags": ["jwks"]}).body["tags"] == ["jwks"]
    keys = published(everybody)
    assert keys[encrypting["kid_public"]]["use"] == "enc"
    assert keys[imported["kid"]] == callers.alice.get(f"/keys/{imported['kid']}").body["jwk"]
    assert secret["kid"] not in keys
    for key in (encrypting, imported):
        callers.alice.request("DELETE", f"/keys/{key['kid']}/tags", json={"tags": ["jwks"]})


def test_an_owner_and_a_tag_narrow_the_set(callers):
    everybody = Api.over_http(callers.url)
    pairs = [who.create(**PAIR) for who in (callers.alice, callers.alice, callers.bob)]
    for pair, who in zip(pairs[1:], (callers.alice, callers.bob), strict=True):
        who.post(f"/keys/{pair['kid']}/tags", {"tags": ["shop"]})
    of_alice = callers.alice.get(f"/keys/{pairs[0]['kid']}").body["owner"]
    first, second, third = (pair["kid_public"] for pair in pairs)
    mine = published(everybody, owner=of_alice).keys()
    assert {first, second} <= mine
    assert third not in mine
    assert published(everybody, tag="shop").keys() == {second, third}
    assert published(everybody, owner=of_alice, tag="shop").keys() == {second}
    assert published(everybody, owner="token:nobody") == {}
    refused = everybody.get("/.well-known/jwks.json?owner=%00")
    assert refused.refusal == (400, "bad_request")


def test_a_key_is_published_as_the_new_owners_only_if_he_or_an_administrator_wants_it(callers):
    everybody = Api.over_http(callers.url)
    given, moved = (callers.alice.create(**PAIR) for _ in range(2))
    callers.alice.request(
        "PUT", f"/keys/{given['kid']}/grants/token:alice", json={"operations": ["sign"]}
    )
    assert change(callers.alice, given["kid"], owner="token:bob").body["tags"] == []
    assert change(callers.admin, moved["kid"], owner="token:bob").body["tags"] == ["jwks"]
    of_bob = published(everybody, owner="token:bob").keys()
    assert given["kid_public"] not in of_bob
    assert moved["kid_public"] in of_bob
    callers.bob.post(f"/keys/{given['kid']}/tags", {"tags": ["jwks"]})
    assert given["kid_public"] in published(everybody, owner="token:bob")


@pytest.mark.parametrize(
    ("crv", "alg"), [("P-256", "ES256"), ("P-384", "ES384"), ("P-521", "ES512")]
)
def test_the_entry_of_a_key_on_a_curve_has_its_only_alg(callers, crv, alg):
    everybody = Api.over_http(callers.url)
    pair = callers.alice.create(kty="EC", crv=crv)
    assert "alg" not in pair
    assert published(everybody)[pair["kid_public"]]["alg"] == alg
    free = callers.alice.shared(kty="RSA")
    assert "alg" not in published(everybody)[free["kid_public"]]


def test_pages_of_every_origin_may_read_the_set(callers):
    everybody = Api.over_http(callers.url)
    answer = everybody.get("/.well-known/jwks.json", headers={"Origin": "https://spa.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_a_key_is_published_as_long_as_it_verifies_for_others(callers):
    everybody = Api.over_http(callers.url)
    pair = callers.alice.create(**PAIR)
    kid, public = pair["kid"], pair["kid_public"]
    assert public in published(everybody)
    change(callers.alice, kid, state="deactivated")
    assert public in published(everybody)
    change(callers.alice, kid, state="compromised")
    assert public not in published(everybody)


def test_a_key_without_the_tag_is_not_published(callers):
    everybody = Api.over_http(callers.url)
    pair = callers.alice.create(**PAIR)
    callers.alice.request("DELETE", f"/keys/{pair['kid']}/tags", json={"tags": ["jwks"]})
    assert pair["kid_public"] not in published(everybody)
    callers.alice.post(f"/keys/{pair['kid']}/tags", {"tags": ["jwks"]})
    assert pair["kid_public"] in published(everybody)
    callers.alice.delete(pair["kid"])
    assert pair["kid_public"] not in published(everybody)


def test_who_has_the_published_keys_is_told_that_they_are_the_same(callers):
    everybody = Api.over_http(callers.url)
    answer = everybody.get("/.well-known/jwks.json")
    assert answer.headers["Content-Type"] == "application/jwk-set+json"
    tag = answer.headers["ETag"]
    assert tag.startswith('W/"')
    again = everybody.get("/.well-known/jwks.json", headers={"If-None-Match": tag})
    assert (again.status, again.content) == (304, b"")
    callers.alice.create(**PAIR)
    changed = everybody.get("/.well-known/jwks.json", headers={"If-None-Match": tag})
    assert changed.status == 200


def test_publishing_is_a_choice(serve, tmp_path):
    own = make_token(tmp_path / "state")
    with serve(own | {"JOSE_HSM_JWKS_TAGGING": "0"}) as url:
        api = Api.over_http(url)
        pair = api.create(**PAIR)
        assert not pair["published"]
        assert published(api) == {}
        api.post(f"/keys/{pair['kid']}/tags", {"tags": ["jwks"]})
        assert published(api).keys() == {pair["kid_public"]}


def test_no_key_is_pushed_out_of_the_set_by_another(serve, tmp_path):
    own = make_token(tmp_path / "state")
    with serve(own | {"JOSE_HSM_JWKS_KEYS": "2"}) as url:
        api = Api.over_http(url)
        once = str(uuid4())
        *pairs, third = [
            api.create(**PAIR),
            api.create(**PAIR),
            repeat(api, "/keys", PAIR, once).body,
        ]
        assert [pair["published"] for pair in (*pairs, third)] == [True, True, False]
        assert repeat(api, "/keys", PAIR, once).body == third
        assert api.get(f"/keys/{third['kid']}").body["tags"] == []
        assert published(api).keys() == {pair["kid_public"] for pair in pairs}

        refused = api.post(f"/keys/{third['kid']}/tags", {"tags": ["jwks", "another"]})
        assert refused.refusal == (422, "crypto_failure")
        assert api.get(f"/keys/{third['kid']}/tags").body["tags"] == []
        again = api.post(f"/keys/{pairs[0]['kid']}/tags", {"tags": ["jwks", "another"]})
        assert again.body["tags"] == ["another", "jwks"]

        change(api, pairs[0]["kid"], state="compromised")
        api.post(f"/keys/{third['kid']}/tags", {"tags": ["jwks"]})
        assert published(api).keys() == {pairs[1]["kid_public"], third["kid_public"]}


def test_an_expired_row_is_read_as_deactivated(registry_url):
    registry = Registry(registry_url, host="test")
    key = Key(
        kid=UUID(int=1),
        kid_public=None,
        owner="token:a",
        spec=KeySpec(kty="oct", alg="HS256", bits=256),
        origin=Origin.GENERATED,
        residency=Residency.TOKEN,
    )
    registry.insert(key)
    registry.activate_all({key.ref: None})
    active = registry.find(key.kid)
    assert active
    assert registry.change(active, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    expired = registry.find(key.kid)
    assert expired
    assert expired.state is State.DEACTIVATED
    registry._database.engine.dispose()
