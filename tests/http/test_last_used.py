"""What callers are told of the last use of a key, and what counts as one."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.config import Config
from app.registry import Registry
from app.service import service_of
from tests.http.test_deleted_keys import BATCHED, listed
from tests.shared.api import Api
from tests.shared.reads import reads_of

BAD_REQUEST = (400, "bad_request")
SIGNER = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
CIPHER = {"kty": "oct", "alg": "A256GCM"}
AGREED = {"alg": "ECDH-ES+A128KW", "enc": "A128GCM"}
READER = {"kty": "EC", "crv": "P-256", "alg": AGREED["alg"]}
DATA = {"data": "AAAA"}


@pytest.fixture
def registry(application: Any) -> Registry:
    return service_of(application).registry


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def last_used(api: Any, kid: str) -> str | None:
    day: str | None = api.get(f"/keys/{kid}").body["last_used"]
    return day


def requests(api: Any) -> list[tuple[str, dict[str, Any], str]]:
    """Each operation, by its path and body, and the kid that it uses, of which none is used."""
    signer, spare, secret, cipher = (
        api.create(**members)
        for members in (SIGNER, SIGNER, {"kty": "oct", "alg": "HS256"}, CIPHER)
    )
    sealer, reader, opener = api.create(**CIPHER), api.create(**READER), api.create(**READER)
    key, mac = signer["kid"], {"kid": secret["kid"], "alg": "HS256"} | DATA
    sign = {"kid": key, "alg": "ES256"} | DATA
    seal = {"kid": cipher["kid"], "alg": "dir", "enc": "A256GCM"} | DATA
    agree = {"kid": reader["kid_public"]} | AGREED | DATA
    to = {"to": {"kid": opener["kid"], "alg": AGREED["alg"]}}
    general = {"serialization": "general"} | DATA
    jws, jwe, sealed = api.ok("/sign", sign), api.ok("/encrypt", agree), api.ok("/encrypt", seal)
    signers = {"signers": [{"kid": spare["kid"], "alg": "ES256"}]}
    recipient = {"kid": reader["kid_public"], "alg": AGREED["alg"]}
    recipients = {"enc": AGREED["enc"], "recipients": [recipient]}
    return [
        ("/sign", sign, key),
        ("/verify", jws | DATA, key),
        ("/sign", signers | general, spare["kid"]),
        ("/mac", mac, secret["kid"]),
        ("/mac", mac | {"mac": api.ok("/mac", mac)["mac"]}, secret["kid"]),
        ("/encrypt", seal, cipher["kid"]),
        ("/encrypt", seal | {"kid": sealer["kid"]}, sealer["kid"]),
        ("/decrypt", sealed, cipher["kid"]),
        ("/encrypt", agree, reader["kid"]),
        ("/encrypt", recipients | general, reader["kid"]),
        ("/decrypt", jwe, reader["kid"]),
        ("/keys/unwrap", jwe, reader["kid"]),
        ("/rewrap", jwe | to, reader["kid"]),
        ("/rewrap", jwe | to, opener["kid"]),
        (f"/keys/{key}/csr", {"subject": {"CN": "x"}}, key),
        (f"/keys/{key}/sign", {"alg": "ES256"} | DATA, key),
    ]


def forget(registry: Registry, kid: str) -> None:
    """Have a key be one that has not been used, neither here nor in the registry."""
    registry.uses.write()
    registry.uses._noted.pop(UUID(kid).int, None)
    with registry._database.writing() as connection:
        connection.exec_driver_sql(f"DELETE FROM uses WHERE kid = '{kid}'")


def test_every_operation_is_a_use_of_its_keys(local, registry):
    for path, body, kid in requests(local):
        forget(registry, kid)
        assert last_used(local, kid) is None, path
        before = today()
        answer = local.post(path, body)
        assert answer.status == 200, answer.body
        if path == "/keys/unwrap":
            local.delete(answer.body["kid"])
        registry.uses.write()
        assert before <= (last_used(local, kid) or "") <= today(), path


def test_so_are_those_of_a_batch(local, registry):
    alone = [(path, body, kid) for path, body, kid in requests(local) if path in BATCHED]
    for _, _, kid in alone:
        forget(registry, kid)
    before = today()
    parts = [{"op": path[1:], "body": body} for path, body, _ in alone for _ in range(3)]
    answers = local.ok("/batch", {"requests": parts})["responses"]
    assert {one["status"] for one in answers} == {200}
    registry.uses.write()
    for path, _, kid in alone:
        assert before <= (last_used(local, kid) or "") <= today(), path


def test_no_operation_writes(local, registry):
    """But for the blocks of the AES-GCM budget, of which the first has been taken."""
    for path, body, _ in requests(local):
        if path == "/keys/unwrap":  # it makes a key
            continue
        assert local.post(path, body).status == 200
        with reads_of(registry) as asked:
            assert local.post(path, body).status == 200
        assert [one for one in asked if not one.startswith(("SELECT", "WITH"))] == [], path
        assert [one for one in asked if "INSERT" in one or "UPDATE" in one] == [], path


def test_what_is_refused_and_what_is_asked_of_a_key_is_no_use(local, registry):
    key, cipher = local.create(**SIGNER), local.create(**CIPHER)
    kid = key["kid"]
    sealed = local.ok("/encrypt", {"kid": cipher["kid"], "alg": "dir", "enc": "A256GCM"} | DATA)
    forget(registry, cipher["kid"])
    assert local.post("/sign", {"kid": kid, "alg": "ES384"} | DATA).status == 422
    assert local.post("/decrypt", sealed | {"tag": "A" * 22}).status == 422
    local.ok(f"/keys/{kid}/tags", {"tags": ["x"]})
    assert local.request("PATCH", f"/keys/{kid}", json={"name": "x"}).status == 200
    assert local.get(f"/keys/{kid}/public.pem").status == 200
    registry.uses.write()
    assert (last_used(local, kid), last_used(local, cipher["kid"])) == (None, None)


def test_a_service_that_is_stopped_has_written_what_was_used(environment, serve):
    config = Config.from_env(environment)
    before = today()
    with serve(environment, workers=1) as url:
        api = Api.over_http(url)
        kid = api.create(**SIGNER)["kid"]
        api.ok("/sign", {"kid": kid, "alg": "ES256"} | DATA)
    registry = Registry(config.registry_url, host="test")
    used = registry.pages.remarks_on([UUID(kid)])[UUID(kid)].used
    assert used
    assert before <= used.isoformat() <= today()
    registry._database.engine.dispose()


def test_a_list_is_narrowed_to_keys_that_nobody_uses(callers_of_each):
    alice = callers_of_each.alice
    registry = Registry(Config.from_env(callers_of_each.environment).registry_url, host="test")
    used, unused, young = (alice.create(**SIGNER)["kid"] for _ in range(3))
    last_week = datetime.now(UTC) - timedelta(days=7)
    with registry._database.writing() as connection:
        for kid in (used, unused):
            connection.exec_driver_sql(
                f"UPDATE keys SET created_at = '{last_week:%Y-%m-%d %H:%M:%S}' WHERE kid = '{kid}'"
            )
    registry.uses.note(UUID(used))
    registry.uses.write()
    registry._database.engine.dispose()
    since = (datetime.now(UTC) - timedelta(days=2)).date().isoformat()
    found = listed(alice, unused_since=since)
    assert {kid for kid in (used, unused, young) if kid in found} == {unused}
    assert found[unused]["last_used"] is None
    assert listed(alice)[used]["last_used"] is not None


@pytest.mark.parametrize(
    "day",
    ["", "yesterday", "20260131", "2026-02-30", "2026-1-1", "2026-01-31T00:00:00Z", "9999-01-01"],
)
def test_what_is_no_day_is_refused(day, local):
    answer = local.get(f"/keys?unused_since={day}")
    assert answer.refusal == BAD_REQUEST
    assert answer.body["description"] == "Field 'unused_since' must be a day like 2030-01-31"
