"""Keys that the registry keeps, encrypted by the token: made, used, changed, and tampered with."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import create_engine, text

from app.config import Config
from tests.http.test_wrapped_imports import body_of, der, public_of, wrapped_for
from tests.shared.api import Answer, Api, b64u
from tests.shared.callers import Callers
from tests.shared.waiting import until

pytestmark = pytest.mark.softhsm  # no other token of the tests has a key-encryption key

WRAPPED = {"storage": "wrapped"}
EC = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
RSA = {"kty": "RSA", "alg": "RSA-OAEP", "bits": 2048}
AES = {"kty": "oct", "alg": "A256GCM"}
HMAC = {"kty": "oct", "alg": "HS256"}
DATA = b64u(b"data")
BAD_REQUEST, NOT_OFFERED = (400, "bad_request"), (422, "unsupported_algorithm")
NOT_FOUND, REFUSED, UNAVAILABLE = (404, "not_found"), (422, "crypto_failure"), (503, "unavailable")
BROKEN = {
    "error": "unavailable",
    "description": "Service unavailable: the row of the key was changed by others",
}


def sign(api: Api, kid: str, **members: Any) -> Any:
    return api.post("/sign", {"kid": kid, "alg": "ES256", "data": DATA} | members)


def is_valid(api: Api, signed: Any) -> bool:
    return bool(api.ok("/verify", signed.body | {"payload": DATA})["valid"])


def test_a_wrapped_key_says_so_and_signs(live):
    key = live.create(**EC, **WRAPPED)
    assert key["storage"] == "wrapped"
    read = live.get(f"/keys/{key['kid']}").body
    assert (read["storage"], read["residency"], read["origin"]) == ("wrapped", "token", "generated")
    assert is_valid(live, sign(live, key["kid"]))


def test_a_key_that_says_nothing_is_kept_on_the_token(live):
    key = live.create(**EC)
    assert "storage" not in key
    assert live.get(f"/keys/{key['kid']}").body["storage"] == "token"
    assert live.create(**EC, storage=None).keys() == key.keys()


def test_a_wrapped_key_encrypts_and_another_opens_what_comes_with_it(live):
    key = live.create(**RSA, **WRAPPED)
    message = {"kid": key["kid"], "alg": "RSA-OAEP", "enc": "A256GCM", "data": DATA}
    jwe = live.ok("/encrypt", message)
    assert live.ok("/decrypt", jwe)["data"] == DATA
    unwrapped = live.ok("/keys/unwrap", jwe)
    assert live.ok("/encrypt", {**message, "kid": unwrapped["kid"], "alg": "dir"})


@pytest.mark.parametrize("alg", ["A128CBC-HS256", "A256GCM"])
def test_a_wrapped_secret_encrypts_by_itself(live, alg):
    key = live.create(kty="oct", alg=alg, **WRAPPED)
    jwe = live.ok("/encrypt", {"kid": key["kid"], "alg": "dir", "enc": alg, "data": DATA})
    assert live.ok("/decrypt", jwe)["data"] == DATA


def test_a_wrapped_key_makes_codes(live):
    key = live.create(**HMAC, **WRAPPED)
    code = live.ok("/mac", {"kid": key["kid"], "alg": "HS256", "data": DATA})["mac"]
    body = {"kid": key["kid"], "alg": "HS256", "data": DATA, "mac": code}
    assert live.ok("/mac", body)["valid"] is True


def test_an_imported_key_is_kept_wrapped(live):
    key = live.create(kty="oct", alg="HS256", k=b64u(bytes(32)), **WRAPPED)
    assert live.get(f"/keys/{key['kid']}").body["storage"] == "wrapped"
    assert live.ok("/mac", {"kid": key["kid"], "alg": "HS256", "data": DATA})


def test_a_key_that_comes_in_wrapped_is_kept_wrapped(live):
    wrapping = live.ok("/wrapping-keys", {})
    private = ec.generate_private_key(ec.SECP256R1())
    octets = wrapped_for(wrapping, der(private))
    key = live.ok("/keys", body_of(wrapping, octets, **public_of(private), alg="ES256", **WRAPPED))
    assert live.get(f"/keys/{key['kid']}").body["storage"] == "wrapped"
    assert is_valid(live, sign(live, key["kid"]))


def test_what_the_token_does_not_wrap_is_refused_with_its_reason(live):
    answer = live.post("/keys", {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", **WRAPPED})
    assert answer.refusal == NOT_OFFERED
    assert answer.body["description"] == (
        "'wrapped storage' is not available: the token answers KeyNotWrappable"
    )


@pytest.mark.parametrize("storage", ["registry", "", 1, True, ["wrapped"]])
def test_another_storage_is_refused(live, storage):
    assert live.post("/keys", {**EC, "storage": storage}).refusal == BAD_REQUEST


def test_a_destroyed_key_is_gone(live):
    key = live.create(**EC, **WRAPPED)
    assert sign(live, key["kid"]).status == 200
    assert live.delete(key["kid"]).status == 204
    assert sign(live, key["kid"]).refusal == NOT_FOUND


def test_a_deactivated_key_verifies_and_signs_again_when_it_is_active(live):
    key = live.create(**EC, **WRAPPED)
    signed, path = sign(live, key["kid"]), f"/keys/{key['kid']}"
    assert live.request("PATCH", path, json={"state": "deactivated"}).status == 200
    assert sign(live, key["kid"]).refusal == REFUSED
    assert is_valid(live, signed)
    assert live.request("PATCH", path, json={"state": "active"}).status == 200
    assert is_valid(live, sign(live, key["kid"]))


# --- Many at once ---


@pytest.mark.parametrize("storage", ["token", "wrapped"])
def test_as_many_are_made_as_are_asked_for(live, storage):
    name = uuid4().hex
    made = live.ok("/keys", {**EC, "storage": storage, "count": 3, "name": name, "tags": [name]})
    assert made.keys() == {"keys"}
    kids = {key["kid"] for key in made["keys"]}
    assert len(kids) == 3
    listed = live.get(f"/keys?tag={name}").body["keys"]
    assert {key["kid"] for key in listed} == kids
    assert {(key["name"], key["storage"]) for key in listed} == {(name, storage)}
    assert all(is_valid(live, sign(live, kid)) for kid in kids)


@pytest.mark.parametrize("hundreds", [2, pytest.param(10, marks=pytest.mark.long)])
def test_hundreds_of_keys_put_nothing_on_the_token(live, environment, hundreds):
    before = objects_of(environment)
    made = [live.ok("/keys", {**EC, **WRAPPED, "count": 100})["keys"] for _ in range(hundreds)]
    kids = {key["kid"] for some in made for key in some}
    assert len(kids) == 100 * hundreds
    assert len(objects_of(environment) - before) < 10  # a key set of another test may rotate
    assert all(is_valid(live, sign(live, kid)) for kid in sorted(kids)[::100])


def objects_of(environment: Mapping[str, str]) -> set[str]:
    """The files in which SoftHSM keeps objects."""
    return {path.name for path in Path(environment["JOSE_HSM_STATE_DIR"]).rglob("*.object")}


def test_one_is_a_list_too_if_it_is_counted(live):
    assert len(live.ok("/keys", {**EC, **WRAPPED, "count": 1})["keys"]) == 1


REFUSED_COUNTS: dict[str, Any] = {
    "none": {"count": 0},
    "below": {"count": -1},
    "too many": {"count": 101},
    "text": {"count": "2"},
    "fraction": {"count": 1.5},
    "truth": {"count": True},
    "alias": {"count": 2, "alias": "of-many"},
    "import": {"count": 2, "d": "AQ", "x": "AQ", "y": "AQ"},
}


@pytest.mark.parametrize("members", REFUSED_COUNTS.values(), ids=REFUSED_COUNTS)
def test_another_count_is_refused(live, members):
    assert live.post("/keys", EC | members).refusal == BAD_REQUEST


@pytest.mark.parametrize("storage", ["token", "wrapped"])
def test_the_same_request_gets_the_same_keys(live, storage):
    body, headers = {**EC, "storage": storage, "count": 2}, {"Idempotency-Key": uuid4().hex}
    first, second = (live.post("/keys", body, headers=headers) for _ in range(2))
    assert first.status == 200
    assert first.body == second.body


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("storage", ["token", "wrapped"])
def test_a_repetition_names_no_destroyed_key_among_several(live, storage, place):
    body, headers = {**EC, "storage": storage, "count": 2}, {"Idempotency-Key": uuid4().hex}
    made = live.post("/keys", body, headers=headers).body["keys"]
    live.delete(made[place]["kid"])
    answer = live.post("/keys", body, headers=headers)
    assert answer.refusal == (404, "not_found")


# --- Tampering ---


@pytest.fixture
def database(callers_of_each: Callers) -> Iterator[Callable[..., None]]:
    """Write into the registry behind the back of the service."""
    engine = create_engine(Config.from_env(callers_of_each.environment).registry_url)

    def execute(statement: str, **values: Any) -> None:
        with engine.begin() as connection:
            assert connection.execute(text(statement), values).rowcount > 0

    yield execute
    engine.dispose()


def alarms(api: Api) -> float:
    """Return how often a broken seal has been noticed."""
    lines = api._send("GET", "/metrics").text.splitlines()
    [line] = [line for line in lines if line.startswith("jose_hsm_broken_seals_total")]
    return float(line.split()[-1])


CHANGES: dict[str, Mapping[str, Any]] = {
    "owner": {"owner": "token:bob"},
    "curve": {"alg": "ES384", "crv": "P-384"},
    "type": {"kty": "RSA", "alg": "RS256", "crv": None, "bits": 2048},
    "bits": {"bits": 256},
    "digests": {"signs_digests": True},
    "kid_public": {"kid_public": None},
    "blob": {"blob": bytes(80)},
    "no blob": {"blob": None},
    "seal": {"seal": bytes(32)},
    "no seal": {"seal": None},
    "no kek": {"kek": None},
}


Changed = Callable[..., Callable[[], Answer]]


@pytest.fixture
def changed(callers_of_each: Callers, database: Callable[..., None]) -> Changed:
    """Change the row of a new key; return what asks for its use then."""
    callers = callers_of_each

    def change_row(change: Mapping[str, Any], *, is_used: bool) -> Callable[[], Answer]:
        key = callers.alice.create(**EC, **WRAPPED)
        if is_used:
            assert sign(callers.alice, key["kid"]).status == 200
        columns = ", ".join(f"{name} = :{name}" for name in change)
        database(f"UPDATE keys SET {columns} WHERE kid = :kid", kid=key["kid"], **change)
        caller = callers.bob if "owner" in change else callers.alice
        body = {"kid": key["kid"], "alg": change.get("alg", "ES256"), "data": DATA}
        return lambda: caller.post("/sign", body)

    return change_row


either_use = pytest.mark.parametrize("is_used", [False, True], ids=["cold", "used before"])


@either_use
def test_each_use_of_a_row_that_others_have_changed_is_told(callers_of_each, changed, is_used):
    """Of all changes at once: the figures come some time later, and to ask for them takes long."""
    uses = [changed(change, is_used=is_used) for change in CHANGES.values()]
    before = alarms(callers_of_each.admin)
    for use in uses:
        assert use().body == BROKEN
    until(lambda: alarms(callers_of_each.admin) >= before + len(uses))


@either_use
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_row_that_others_have_changed_is_never_used(changed, change, is_used):
    use = changed(change, is_used=is_used)
    for _ in range(2):
        assert use().body == BROKEN


def test_blobs_of_two_keys_that_others_have_exchanged_are_never_used(callers_of_each, database):
    callers = callers_of_each
    one, two = (callers.alice.create(**EC, **WRAPPED)["kid"] for _ in range(2))
    for column in ("blob", "seal"):
        database(
            f"UPDATE keys SET {column} = (SELECT {column} FROM keys AS other"
            " WHERE other.kid = :other) WHERE kid = :kid",
            kid=one,
            other=two,
        )
    assert sign(callers.alice, one).body == BROKEN
    assert sign(callers.alice, two).status == 200


def test_a_key_of_the_token_does_not_become_one_of_the_registry(callers_of_each, database):
    key = callers_of_each.alice.create(**EC)
    database("UPDATE keys SET storage = 'wrapped' WHERE kid = :kid", kid=key["kid"])
    assert sign(callers_of_each.alice, key["kid"]).body == BROKEN


def test_a_key_of_the_registry_does_not_become_one_of_the_token(callers_of_each, database):
    key = callers_of_each.alice.create(**EC, **WRAPPED)
    database("UPDATE keys SET storage = 'token' WHERE kid = :kid", kid=key["kid"])
    assert sign(callers_of_each.alice, key["kid"]).refusal == UNAVAILABLE


def test_a_key_that_is_given_away_gets_a_seal_of_its_new_owner(callers_of_each):
    callers = callers_of_each
    key = callers.alice.create(**EC, **WRAPPED)
    path = f"/keys/{key['kid']}"
    assert callers.alice.request("PATCH", path, json={"owner": "token:bob"}).status == 200
    assert is_valid(callers.bob, sign(callers.bob, key["kid"]))
    assert sign(callers.alice, key["kid"]).refusal == (403, "forbidden")


def test_a_changed_row_gets_no_new_seal(callers_of_each, database):
    callers = callers_of_each
    key = callers.alice.create(**EC, **WRAPPED)
    database("UPDATE keys SET bits = 1 WHERE kid = :kid", kid=key["kid"])
    path = f"/keys/{key['kid']}"
    answer = callers.alice.request("PATCH", path, json={"owner": "token:bob"})
    assert answer.body == BROKEN
    assert sign(callers.alice, key["kid"]).body == BROKEN
