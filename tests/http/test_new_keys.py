"""What a key is given at its creation, in one transaction; and how many there may be."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from scripts.throwaway import make_token
from tests.shared.api import Api, b64u
from tests.shared.callers import WITH_TOKENS, Callers

END = "2999-01-31T12:00:00Z"
LABELS = {"name": "of invoices", "tags": ["invoices", "b", "invoices"], "expires": END}
KINDS: Mapping[str, Mapping[str, str]] = {
    "pair": {"kty": "EC", "crv": "P-256", "alg": "ES256"},
    "secret": {"kty": "oct", "alg": "HS256"},
    "import": {"kty": "oct", "alg": "HS256", "k": b64u(bytes(range(32)))},
}
QUOTA = 3
TOO_MANY = {
    "error": "too_many_keys",
    "description": f"The owner may have {QUOTA} keys, and would have more",
}


def all_keys(api: Api) -> list[dict[str, Any]]:
    """Return the first page of keys; when they were used may be written at any time."""
    page = api.get("/keys?limit=200").body
    return [key | {"last_used": None} for key in page["keys"]]


def described(api: Api, kid: str) -> dict[str, Any]:
    body: dict[str, Any] = api.get(f"/keys/{kid}").body
    return {name: body[name] for name in ("name", "tags", "expires", "state")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_is_born_with_name_tags_and_end(local: Api, kind: str) -> None:
    plain = local.create(**KINDS[kind])
    key = local.create(**KINDS[kind], **LABELS)
    assert key.keys() == plain.keys()
    own = ["jwks"] if kind == "pair" else []
    tags = sorted([*own, "b", "invoices"])
    expected = {"name": "of invoices", "tags": tags, "expires": END, "state": "active"}
    assert described(local, key["kid"]) == expected
    unlabelled = {"name": None, "tags": own, "expires": None, "state": "active"}
    assert described(local, plain["kid"]) == unlabelled


def test_null_is_nothing_and_a_tag_of_ours_may_be_given(local: Api) -> None:
    nothing = {"name": None, "tags": None, "expires": None}
    assert described(local, local.create(**KINDS["secret"], **nothing)["kid"])["tags"] == []
    pair = local.create(**KINDS["pair"], tags=["jwks"])
    assert described(local, pair["kid"])["tags"] == ["jwks"]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *(("name", value) for value in ("", "x" * 256, "a\nb", 5, ["a"])),
        *(("tags", value) for value in ("a", [5], [""], ["_a"], ["a\0"], ["x" * 256])),
        ("tags", [str(number) for number in range(101)]),
        *(("expires", value) for value in ("", "tomorrow", "2020-01-01T00:00:00Z", 5, "9999")),
        ("expires", "9999-12-31T23:59:59Z"),
    ],
)
def test_what_cannot_be_said_of_a_key_makes_none(local: Api, member: str, value: Any) -> None:
    before = all_keys(local)
    answer = local.post("/keys", {**KINDS["secret"], member: value})
    assert answer.refusal == (400, "bad_request")
    assert f"'{member}'" in answer.body["description"]
    assert all_keys(local) == before


def test_a_key_and_its_tags_come_together_or_not_at_all(
    local: Api, application: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tag that fails takes the row with it."""
    from app.registry.rows import additions  # noqa: PLC0415  # only to break it

    made = []

    def tags_fail(table: Any) -> Any:
        made.append(table.name)
        if table.name == "tags":
            raise RuntimeError("no tag")
        return insert(table)

    before = all_keys(local)
    monkeypatch.setattr(additions, "insert", tags_fail)
    assert local.post("/keys", {**KINDS["secret"], "tags": ["a", "b"]}).status == 500
    assert made == ["keys", "tags"]
    monkeypatch.undo()
    assert all_keys(local) == before


# --- How many ---


@pytest.fixture(scope="module")
def bounded(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    """Callers who have no keys but those that they make here."""
    own = make_token(tmp_path_factory.mktemp("bounded") / "state")
    settings = {**own, **WITH_TOKENS, "JOSE_HSM_KEYS_PER_OWNER": str(QUOTA)}
    with serve(settings, workers=1) as url:
        yield Callers.of(settings, url)


def test_an_owner_has_as_many_keys_as_the_operator_allows(bounded: Callers) -> None:
    for key in bounded.alice.get("/keys").body["keys"]:
        bounded.alice.delete(key["kid"])
    reader = bounded.alice.create(kty="RSA", alg="RSA-OAEP")["kid"]
    encrypt = {"kid": reader, "alg": "RSA-OAEP", "enc": "A128GCM", "data": ""}
    jwe = bounded.alice.ok("/encrypt", encrypt)
    wrapped = {name: jwe[name] for name in ("protected", "encrypted_key")}
    kids = [bounded.alice.ok("/keys/unwrap", wrapped)["kid"] for _ in range(QUOTA - 1)]
    for path, body in (
        ("/keys", KINDS["secret"]),
        ("/keys", KINDS["import"]),
        ("/keys/unwrap", wrapped),
    ):
        answer = bounded.alice.post(path, body)
        assert (answer.status, answer.body) == (422, TOO_MANY)
    for key in bounded.bob.get("/keys").body["keys"]:
        bounded.bob.delete(key["kid"])
    several = bounded.bob.post("/keys", {**KINDS["secret"], "count": QUOTA + 1})  # who has none
    assert (several.status, several.body) == (422, TOO_MANY)
    given = bounded.bob.create(**KINDS["secret"])["kid"]  # each has his own
    answer = bounded.bob.request("PATCH", f"/keys/{given}", json={"owner": "token:alice"})
    assert (answer.status, answer.body) == (422, TOO_MANY)
    kept = bounded.alice.request("PATCH", f"/keys/{kids[0]}", json={"owner": "token:alice"})
    assert kept.status == 200
    assert bounded.alice.delete(kids[0]).status == 204
    bounded.alice.create(**KINDS["secret"])


def test_a_repeated_request_is_answered_though_the_owner_has_enough(bounded: Callers) -> None:
    for key in bounded.alice.get("/keys").body["keys"]:
        bounded.alice.delete(key["kid"])
    once = {"Idempotency-Key": "once"}
    made = [
        bounded.alice.post("/keys", KINDS["secret"], headers={"Idempotency-Key": f"{number}"})
        for number in range(QUOTA - 1)
    ]
    assert {answer.status for answer in made} == {200}
    first = bounded.alice.post("/keys", KINDS["secret"], headers=once)
    again = bounded.alice.post("/keys", KINDS["secret"], headers=once)
    assert first.status == 200
    assert first.body == again.body


# --- Those that are published ---


def test_a_key_is_published_at_its_creation_or_not_made(serve: Any, tmp_path: Path) -> None:
    few = {"JOSE_HSM_JWKS_KEYS": "1", "JOSE_HSM_JWKS_TAGGING": "0"}
    with serve({**make_token(tmp_path / "state"), **few}, workers=1) as url:
        api = Api.over_http(url)
        while api.post("/keys", KINDS["secret"]).status == 503:
            pass  # the token is being opened
        imported = {"kty": "EC", "crv": "P-256", "alg": "ES256", "d": b64u((5).to_bytes(32))}
        key = api.create(**imported, tags=["jwks", "of a test"])
        assert described(api, key["kid"])["tags"] == ["jwks", "of a test"]
        assert published(api) == [key["kid"]]
        before = api.get("/keys?limit=200").body
        answer = api.post("/keys", {**KINDS["pair"], "tags": ["jwks"]})
        assert answer.refusal == (422, "crypto_failure")
        assert "1 keys may be published" in answer.body["description"]
        assert api.get("/keys?limit=200").body == before
        assert api.create(**KINDS["pair"])["published"] is False


def published(api: Api) -> list[str]:
    return [jwk["kid"] for jwk in api.get("/.well-known/jwks.json").body["keys"]]
