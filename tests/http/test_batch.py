"""A batch answers each request as if it had come alone, and is kind to all others."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.audit import verify
from app.errors import Forbidden, RegistryUnavailable
from app.http.operations import OPERATIONS
from app.keys import access
from app.registry import Registry, State
from app.rights import Principal, Right
from app.schemas.batch import MOST_REQUESTS
from app.schemas.batch import OPERATIONS as NAMES
from app.service import service_of
from hsm import CryptoFailure, DecryptionFailed, Observer
from hsm.cryptoki.pool import TURN_SECONDS
from hsm.operations.timing import FAILURE_SECONDS, FailureDelay
from tests.shared.api import Answer, Api, b64u, header, unb64u
from tests.shared.callers import Callers
from tests.shared.examples import examples
from tests.shared.reads import reads_of
from tests.shared.waiting import PATIENCE_SECONDS, until, wait_of_a_batch

Body = dict[str, Any]
UNKNOWN = "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11"
RANDOM = ("iv", "ciphertext", "tag", "encrypted_key", "signature", "jws", "jwe")
"""Members of answers that are never the same twice."""


def batch(api: Api, *requests: Any, **more: Any) -> list[Body]:
    """Return the responses."""
    answers: list[Body] = api.ok("/batch", {"requests": list(requests), **more})["responses"]
    return answers


def messages(api: Api, kids: Mapping[str, str]) -> dict[str, tuple[str, Body]]:
    """Return a good request for each operation and form, by name."""
    data = b64u("data")
    seal = {"kid": kids["aes"], "alg": "dir", "enc": "A256GCM", "data": data}
    oaep = seal | {"kid": kids["rsa"], "alg": "RSA-OAEP"}
    sign = {"kid": kids["ec"], "alg": "ES256", "data": data}
    mac = {"kid": kids["mac"], "alg": "HS256", "data": data}
    jws = api.ok("/sign", sign)
    return {
        "encrypt": ("encrypt", seal | {"aad": data}),
        "encrypt, compact": ("encrypt", seal | {"serialization": "compact", "typ": "JWE"}),
        "encrypt, OAEP": ("encrypt", oaep),
        "decrypt": ("decrypt", api.ok("/encrypt", seal)),
        "decrypt, OAEP": ("decrypt", api.ok("/encrypt", oaep)),
        "decrypt, compact": ("decrypt", api.ok("/encrypt", seal | {"serialization": "compact"})),
        "sign": ("sign", sign),
        "sign, compact": ("sign", sign | {"serialization": "compact", "cty": "text/plain"}),
        "verify": ("verify", jws | {"data": data}),
        "verify, flattened": ("verify", jws | {"payload": data}),
        "verify, compact": ("verify", api.ok("/sign", sign | {"serialization": "compact"})),
        "verify, other data": ("verify", jws | {"data": b64u("date")}),
        "mac": ("mac", mac),
        "mac, right": ("mac", mac | {"mac": api.ok("/mac", mac)["mac"]}),
        "mac, wrong": ("mac", mac | {"mac": "AAAA"}),
    }


CHANGES: Mapping[str, Callable[[Body], Any]] = {
    "as it is": lambda body: body,
    "no object": lambda body: [body],
    "a text": lambda _body: "data",
    "without data": lambda body: {name: body[name] for name in body if name != "data"},
    "bad base64url": lambda body: body | {"data": "A===", "tag": "A", "signature": "/"},
    "another kid": lambda body: _renamed(body, UNKNOWN),
    "no kid": lambda body: _renamed(body, 5),
    "odd kid": lambda body: _renamed(body, "'; --"),
    "alg none": lambda body: body | {"alg": "none", "protected": header(alg="none", kid="x")},
    "wrong alg": lambda body: body | {"alg": "RS256", "enc": "A128GCM"},
    "bad tag": lambda body: body | {"tag": "A" * 22},
    "bad signature": lambda body: body | {"signature": "AAAA"},
    "mixed forms": lambda body: body | {"jws": "a.b.c", "jwe": "a.b.c.d.e"},
    "compact with aad": lambda body: body | {"serialization": "compact", "aad": "AAAA"},
}


def _renamed(body: Body, kid: Any) -> Body:
    if "protected" not in body:
        return body | {"kid": kid}
    members = json.loads(unb64u(body["protected"])) | {"kid": kid}
    return body | {"protected": header(**members)}


@pytest.fixture(scope="module")
def kids(live: Api) -> dict[str, str]:
    return make_keys(live)


def make_keys(api: Api) -> dict[str, str]:
    return {
        "aes": api.create(kty="oct", alg="A256GCM")["kid"],
        "mac": api.create(kty="oct", alg="HS256")["kid"],
        "ec": api.create(kty="EC", crv="P-256", alg="ES256")["kid"],
        "rsa": api.shared(kty="RSA", alg="RSA-OAEP")["kid"],
    }


@pytest.fixture(scope="module")
def every_kind(live: Api, kids: dict[str, str]) -> list[tuple[str, Any]]:
    """Every message with every change, most of them refused."""
    made = messages(live, kids)
    return [(op, change(body)) for op, body in made.values() for change in CHANGES.values()]


@pytest.fixture(scope="module")
def singly(live: Api, every_kind: list[tuple[str, Any]]) -> list[Answer]:
    """What each of them is answered alone."""
    return [live.post(f"/{op}", body) for op, body in every_kind]


def comparable(status: int, body: Body) -> Any:
    """Return an answer without what differs each time."""
    return status, {name: "…" if name in RANDOM else body[name] for name in body}


def test_the_envelope_and_the_table_know_the_same_operations():
    assert set(NAMES) == set(OPERATIONS)


def test_every_kind_is_answered_as_alone(live, every_kind, singly):
    answers = batch(
        live,
        *({"op": op, "id": number, "body": body} for number, (op, body) in enumerate(every_kind)),
    )
    assert [answer["id"] for answer in answers] == list(range(len(every_kind)))
    differing = [
        (request, answer, alone.body)
        for request, answer, alone in zip(every_kind, answers, singly, strict=True)
        if comparable(answer["status"], answer["body"]) != comparable(alone.status, alone.body)
    ]
    assert not differing
    assert {200, 400, 404, 422} == {answer["status"] for answer in answers}


@settings(
    deadline=None,
    max_examples=examples(40),
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_any_mix_is_answered_as_each_alone(live, every_kind, singly, data):
    chosen = data.draw(st.lists(st.integers(0, len(every_kind) - 1), max_size=30))
    requests = [{"op": every_kind[number][0], "body": every_kind[number][1]} for number in chosen]
    answers = batch(live, *requests)
    assert [comparable(answer["status"], answer["body"]) for answer in answers] == [
        comparable(singly[number].status, singly[number].body) for number in chosen
    ]
    assert all(set(answer) == {"status", "body"} for answer in answers)


def test_what_is_made_in_a_batch_works_outside_of_it(live, kids):
    made = messages(live, kids)
    names = [name for name in made if name.startswith("encrypt")]
    for name, answer in zip(
        names,
        batch(live, *({"op": "encrypt", "body": made[name][1]} for name in names)),
        strict=True,
    ):
        assert live.ok("/decrypt", answer["body"])["data"] == made[name][1]["data"]
    jws = batch(live, {"op": "sign", "body": made["sign, compact"][1]})[0]["body"]
    assert live.ok("/verify", jws)["valid"] is True


def test_a_thousand_good_and_bad_requests_are_each_answered_rightly(live, kids):
    data = b64u("data")
    seal = {"kid": kids["aes"], "alg": "dir", "enc": "A256GCM", "data": data}
    jwe = live.ok("/encrypt", seal)
    kinds = [
        ({"op": "encrypt", "body": seal}, 200),
        ({"op": "decrypt", "body": jwe}, 200),
        ({"op": "decrypt", "body": jwe | {"tag": "A" * 22}}, 422),
        ({"op": "mac", "body": {"kid": kids["mac"], "alg": "HS256", "data": data}}, 200),
        ({"op": "mac", "body": {"kid": UNKNOWN, "alg": "HS256", "data": data}}, 404),
        ({"op": "sign", "body": {"kid": kids["ec"], "alg": "none", "data": data}}, 422),
        ({"op": "sign", "body": {"kid": kids["ec"], "alg": "ES256", "data": "="}}, 400),
        ({"op": "encrypt", "body": seal | {"kid": kids["mac"]}}, 422),
    ]
    requests = [kinds[number % len(kinds)][0] for number in range(MOST_REQUESTS)]
    answers = batch(live, *requests)
    expected = [kinds[number % len(kinds)][1] for number in range(MOST_REQUESTS)]
    assert [answer["status"] for answer in answers] == expected
    opened = [answer["body"]["data"] for answer in answers[1 :: len(kinds)]]
    assert set(opened) == {data}
    ivs = [answer["body"]["iv"] for answer in answers[:: len(kinds)]]
    assert len(set(ivs)) == len(ivs)


ENVELOPES: Mapping[str, Any] = {
    "without requests": {},
    "requests null": {"requests": None},
    "requests an object": {"requests": {}},
    "requests a string": {"requests": "encrypt"},
    "a request that is no object": {"requests": [5]},
    "a request without op": {"requests": [{"body": {}}]},
    "an unknown op": {"requests": [{"op": "unwrap", "body": {}}]},
    "an op that is no string": {"requests": [{"op": ["sign"], "body": {}}]},
    "a boolean id": {"requests": [{"op": "sign", "id": True, "body": {}}]},
    "an id that is an object": {"requests": [{"op": "sign", "id": {}, "body": {}}]},
    "too many": {"requests": [{"op": "sign", "body": {}}] * (MOST_REQUESTS + 1)},
}


@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES)
def test_a_malformed_envelope_is_refused_and_nothing_is_done(live, envelope):
    answer = live.post("/batch", envelope)
    assert answer.refusal == (400, "bad_request")
    assert "'requests'" in answer.body["description"]


def test_an_empty_batch_is_answered(live):
    assert batch(live) == []


def test_an_id_is_echoed_and_need_not_be_unique(live):
    ids = ["a", "a", 7, "", "ключ", 2**64, -(10**30), None]
    answers = batch(live, *({"op": "mac", "id": name, "body": {}} for name in ids))
    assert [answer.get("id") for answer in answers] == ids
    assert "id" not in answers[-1]


def test_a_batch_larger_than_a_body_may_be_is_refused(live, kids):
    body = {"kid": kids["mac"], "alg": "HS256", "data": "A" * 2048}
    requests = [{"op": "mac", "body": body}] * MOST_REQUESTS
    assert live.post("/batch", {"requests": requests}).status == 413


# --- Rights, states, keys ---


def test_each_request_needs_its_own_right(callers: Callers):
    kid = callers.alice.create(kty="oct", alg="A256GCM")["kid"]
    mac = callers.bob.create(kty="oct", alg="HS256")["kid"]
    seal = {"kid": kid, "alg": "dir", "enc": "A256GCM", "data": ""}
    jwe = callers.alice.ok("/encrypt", seal)
    path = f"/keys/{kid}/grants/token:bob"
    body = {"operations": ["decrypt", "read"]}
    assert callers.alice.request("PUT", path, json=body).status == 200
    requests = [
        {"op": "encrypt", "body": seal},
        {"op": "decrypt", "body": jwe},
        {"op": "mac", "body": {"kid": mac, "alg": "HS256", "data": ""}},
    ]
    assert [answer["status"] for answer in batch(callers.bob, *requests)] == [403, 200, 200]
    assert [answer["status"] for answer in batch(callers.alice, *requests)] == [200, 200, 403]
    assert [answer["status"] for answer in batch(callers.admin, *requests)] == [403, 403, 403]
    everybody = f"/keys/{kid}/grants/*"
    body = {"operations": ["encrypt"]}
    assert callers.alice.request("PUT", everybody, json=body).status == 200
    assert [answer["status"] for answer in batch(callers.bob, *requests)] == [200, 200, 200]


def test_a_deactivated_key_does_in_a_batch_what_it_does_alone(live):
    kid = live.create(kty="oct", alg="A256GCM")["kid"]
    seal = {"kid": kid, "alg": "dir", "enc": "A256GCM", "data": ""}
    jwe = live.ok("/encrypt", seal)
    body = {"state": "deactivated"}
    assert live.request("PATCH", f"/keys/{kid}", json=body).status == 200
    answers = batch(live, {"op": "encrypt", "body": seal}, {"op": "decrypt", "body": jwe})
    assert [answer["status"] for answer in answers] == [422, 200]
    assert live.delete(kid).status == 204
    answers = batch(live, {"op": "encrypt", "body": seal}, {"op": "decrypt", "body": jwe})
    assert [answer["status"] for answer in answers] == [404, 404]


@pytest.mark.usefixtures("clock")  # which stands still
def test_all_keys_are_read_with_one_query(local, application):
    pair = local.create(kty="EC", crv="P-256", alg="ES256")
    kids = [local.create(kty="oct", alg="HS256")["kid"] for _ in range(3)]
    jws = local.ok("/sign", {"kid": pair["kid"], "alg": "ES256", "data": ""}) | {"data": ""}
    requests = [
        *(
            {"op": "mac", "body": {"kid": kid, "alg": "HS256", "data": ""}}
            for kid in (*kids, *kids)
        ),
        {"op": "verify", "body": jws},
        {"op": "mac", "body": {"kid": UNKNOWN, "alg": "HS256", "data": ""}},
        {"op": "mac", "body": {"kid": "odd", "alg": "HS256", "data": ""}},
    ]
    registry = service_of(application).registry
    looked: list[Any] = []
    lookups = (registry._lookup, registry._lookup_for, registry._lookup_called_for)
    with reads_of(registry) as queries, pytest.MonkeyPatch.context() as patched:
        for lookup in lookups:
            patched.setattr(lookup, "_fetch", looked.append)
        answers = batch(local, *requests)
    assert [answer["status"] for answer in answers] == [200] * 7 + [404] * 2
    assert (len(queries), looked) == (1, [])


# --- The token ---


BOB = Principal("token:bob")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock by which rows grow old."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(access, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def revoke(registry: Registry, kid: UUID) -> None:
    registry.grants.put(kid, BOB, ())


def compromise(registry: Registry, kid: UUID) -> None:
    key = registry.find(kid)
    assert key
    assert registry.change(key, state=State.COMPROMISED)


@pytest.mark.parametrize(("act", "refusal"), [(revoke, Forbidden), (compromise, CryptoFailure)])
def test_what_is_taken_away_counts_in_a_batch_within_a_second(
    local, application, clock, act, refusal
):
    service = service_of(application)
    kid = local.create(kty="oct", alg="HS256")["kid"]
    service.registry.grants.put(UUID(kid), BOB, [Right.MAC])
    with service.keyring.use.together(BOB, {kid}) as keys:
        mac = partial(keys.mac, BOB, kid=kid, alg="HS256", data=b"")
        assert mac()
        act(service.registry, UUID(kid))
        clock.now += access.OLDEST_SECONDS / 2
        assert mac()  # no query for each
        clock.now += access.OLDEST_SECONDS / 2
        with pytest.raises(refusal):
            mac()
    assert access.OLDEST_SECONDS + TURN_SECONDS < 1


def test_a_registry_that_comes_back_serves_the_rest_of_a_batch(local, application, clock):
    service = service_of(application)
    kid = local.create(kty="oct", alg="HS256")["kid"]
    everybody = Principal("anonymous")
    away = Mock(side_effect=RegistryUnavailable)
    with pytest.MonkeyPatch.context() as registry:
        registry.setattr(Registry, "find_readable_for", away)
        with service.keyring.use.together(everybody, {kid}) as keys:
            mac = partial(keys.mac, everybody, kid=kid, alg="HS256", data=b"")
            with pytest.raises(RegistryUnavailable):
                mac()
            registry.undo()
            clock.now += access.OLDEST_SECONDS
            assert mac()


SPOILT = {"expires_at": "'yesterday'", "kid_public": "'none'"}


@pytest.mark.parametrize("column", SPOILT)
def test_a_key_that_cannot_be_read_takes_no_other_of_a_batch_with_it(local, application, column):
    bad, *good = (local.create(kty="oct", alg="HS256")["kid"] for _ in range(4))
    bodies = [{"kid": kid, "alg": "HS256", "data": ""} for kid in (*good, bad)]
    spoil = text(f"UPDATE keys SET {column} = {SPOILT[column]} WHERE kid = :kid")
    heal = text(f"UPDATE keys SET {column} = NULL WHERE kid = :kid")
    with service_of(application).registry._database.engine.connect() as connection:
        connection.execute(spoil, {"kid": bad})
        connection.commit()
        alone = [local.post("/mac", body).status for body in bodies]
        answers = batch(local, *({"op": "mac", "body": body} for body in bodies))
        connection.execute(heal, {"kid": bad})
        connection.commit()
    assert [one["status"] for one in answers] == alone == [200, 200, 200, 503]


@pytest.fixture
def lane(application: Any) -> Any:
    return service_of(application).hsm._connection.token.pool.operations


def test_a_batch_gives_its_session_back(local, lane):
    kid = local.create(kty="oct", alg="HS256")["kid"]
    batch(local, *[{"op": "mac", "body": {"kid": kid, "alg": "HS256", "data": ""}}] * 50)
    until(lambda: lane.sessions.lent == 0)  # the canary may have one


def test_a_batch_lets_others_have_the_only_session(local, lane, monkeypatch):
    monkeypatch.setattr(lane, "_wait_seconds", PATIENCE_SECONDS)  # in which all is done
    kid = local.create(kty="EC", crv="P-521", alg="ES512")["kid"]
    body = {"kid": kid, "alg": "ES512", "data": ""}
    others = [lane.take() for _ in range(lane.sessions.size - 1)]

    def turns() -> int:
        """Return how many have their turn before the end of a batch, or just after it."""
        requests = [{"op": "sign", "body": body}] * 600
        running = threading.Thread(target=batch, args=(local, *requests))
        running.start()
        number = 0
        while running.is_alive():
            assert local.post("/sign", body).status == 200
            number += 1
        running.join()
        return number

    try:
        until(lambda: turns() > 3)  # a batch may be over before others are awake
    finally:
        for session in others:
            lane.give(session)
    until(lambda: lane.sessions.lent == 0)


@pytest.mark.promise
def test_without_a_free_session_a_batch_waits_once_and_not_for_each_request(local, lane):
    kid = local.create(kty="oct", alg="HS256")["kid"]
    request = {"op": "mac", "body": {"kid": kid, "alg": "HS256", "data": ""}}
    taken = [lane.take() for _ in range(lane.sessions.size)]
    started = time.monotonic()
    try:
        answers = batch(local, *[request] * 20)
    finally:
        for session in taken:
            lane.give(session)
    assert {answer["status"] for answer in answers} == {503}
    longest = 10 * lane._wait_seconds  # of 20
    assert time.monotonic() - started < min(longest, wait_of_a_batch(lane._wait_seconds).seconds)


def test_what_has_not_begun_in_time_is_refused(local, monkeypatch):
    kid = local.create(kty="oct", alg="HS256")["kid"]
    body = {"kid": kid, "alg": "HS256", "data": ""}
    monkeypatch.setattr("app.http.batches.LONGEST_SECONDS", -1.0)
    answers = batch(local, {"op": "mac", "body": body}, {"op": "mac", "body": {}})
    assert [answer["status"] for answer in answers] == [503, 400]


def test_a_failed_decryption_of_a_batch_is_as_late_as_one_alone(local):
    kid = local.shared(kty="RSA", alg="RSA-OAEP")["kid"]
    seal = {"kid": kid, "alg": "RSA-OAEP", "enc": "A256GCM", "data": ""}
    bad = local.ok("/encrypt", seal) | {"tag": "A" * 22}
    for number in (1, 20):
        started = time.monotonic()
        answers = batch(local, *[{"op": "decrypt", "body": bad}] * number)
        assert time.monotonic() - started >= max(FAILURE_SECONDS, 0.01 * number)
        assert {answer["body"]["error"] for answer in answers} == {"decryption_failed"}


@pytest.mark.parametrize(
    ("number", "spent", "encrypted_key", "seconds"),
    [
        (1, 0.004, 256, 0.05),
        (2, 0.004, 256, 0.05),
        (100, 0.0002, 256, 1.0),
        (100, 0.008, 256, 1.0),
        (100, 0.014, 256, 2.0),
        (100, 0.014, 512, 5.0),
        (100, 0.002, 40, 1.0),
    ],
)
def test_failures_together_take_a_time_that_depends_on_their_number_and_size(
    number, spent, encrypted_key, seconds, monkeypatch
):
    clock = [0.0]
    slept: list[float] = []
    own_time = SimpleNamespace(monotonic=lambda: clock[0], sleep=slept.append)
    monkeypatch.setattr("hsm.operations.timing.time", own_time)
    delay = FailureDelay(Observer())
    with delay.together():
        for _ in range(number):
            with suppress(DecryptionFailed), delay.of(bytes(encrypted_key)):
                clock[0] += spent
                raise DecryptionFailed
    assert number * spent + sum(slept) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("spent", "seconds"),
    [(0.0, 0.05), (0.049, 0.05), (0.051, 0.1), (0.099, 0.1), (0.101, 0.2), (1.4, 1.6)],
)
def test_a_failure_alone_takes_a_slot_of_time_however_slow_the_token_is(
    spent, seconds, monkeypatch
):
    clock = [0.0]
    slept: list[float] = []
    own_time = SimpleNamespace(monotonic=lambda: clock[0], sleep=slept.append)
    monkeypatch.setattr("hsm.operations.timing.time", own_time)
    with suppress(DecryptionFailed), FailureDelay(Observer()).of(bytes(512)):
        clock[0] += spent
        raise DecryptionFailed
    assert spent + sum(slept) == pytest.approx(seconds)


# --- The audit log ---


@pytest.fixture(scope="module")
def audited(
    environment: Mapping[str, str], serve: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Api, Path]]:
    path = tmp_path_factory.mktemp("audit") / "audit.log"
    with serve({**environment, "JOSE_HSM_AUDIT_LOG": str(path)}, workers=1) as url:
        yield Api.over_http(url), path


def test_each_use_and_each_refusal_of_a_batch_has_its_line(audited):
    api, path = audited
    kids = make_keys(api)
    before = len(path.read_bytes().splitlines())
    mac = {"kid": kids["mac"], "alg": "HS256", "data": ""}
    answers = batch(
        api,
        {"op": "mac", "body": mac},
        {"op": "mac", "body": mac | {"data": "="}},
        {"op": "mac", "body": mac | {"kid": UNKNOWN}},
        {"op": "sign", "body": {"kid": kids["ec"], "alg": "ES256", "data": ""}},
        {"op": "encrypt", "body": {"kid": kids["mac"], "alg": "dir", "enc": "A128GCM", "data": ""}},
    )
    assert [answer["status"] for answer in answers] == [200, 400, 404, 200, 422]
    lines = [json.loads(line) for line in path.read_bytes().splitlines()[before:]]
    assert [
        (line["part"], line["endpoint"], line["kid"], line["alg"], line["status"], line["error"])
        for line in lines
    ] == [
        (0, "signing.mac", kids["mac"], "HS256", 200, None),
        (2, "signing.mac", UNKNOWN, "HS256", 404, "not_found"),
        (3, "signing.sign", kids["ec"], "ES256", 200, None),
        (4, "encryption.encrypt", kids["mac"], "dir", 422, "crypto_failure"),
    ]
    assert len({line["request_id"] for line in lines}) == 1
    assert verify([path]).broken is None


def test_without_their_lines_requests_are_not_answered_and_others_are(audited):
    api, path = audited
    kid = api.create(kty="oct", alg="HS256")["kid"]
    old = path.rename(path.with_suffix(".old"))
    path.mkdir()  # nothing can be written to it
    mac = {"kid": kid, "alg": "HS256", "data": ""}
    answers = batch(api, {"op": "mac", "body": mac}, {"op": "mac", "body": mac | {"data": 5}})
    path.rmdir()
    alone = {
        "error": "unavailable",
        "description": "Service unavailable: the audit log cannot be written",
    }
    assert (answers[0]["status"], answers[0]["body"]) == (503, alone)
    assert answers[1]["status"] == 400
    batch(api, {"op": "mac", "body": mac})
    assert verify([old, path]).broken is None
