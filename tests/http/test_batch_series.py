"""Requests of a batch that differ in their data alone share what they have in common, and no more.

Each is answered as if it had come alone: ``test_batch.py`` compares all kinds and mixes.
"""

import json
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
from flask import Flask
from pkcs11.exceptions import FunctionFailed, KeyHandleInvalid

from app import current_request
from app.current_request import RequestRecord
from app.http import batches
from app.keys import access
from app.keys.budget import EncryptionBudget
from app.rights import Principal, Right
from app.service import Service, service_of
from hsm import Hsm
from hsm.life.connection import Connection
from hsm.operations import mac
from tests.shared.api import Api, b64u, unb64u
from tests.shared.waiting import until

Body = dict[str, Any]
BOB = Principal("token:bob")
MANY = 40


@pytest.fixture
def service(application: Flask) -> Service:
    return service_of(application)


@pytest.fixture(autouse=True)
def long_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, a turn is not over."""
    monkeypatch.setattr("hsm.life.series.TURN_SECONDS", 3600.0)
    monkeypatch.setattr("app.http.batches.LONGEST_SECONDS", 3600.0)


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of work that the thread of the test has the token do."""
    works: list[str] = []
    perform, own = Connection.perform, threading.get_ident()

    def note(connection: Connection, work: Any) -> Any:
        if threading.get_ident() == own:
            works.append(type(work).__name__)
        return perform(connection, work)

    monkeypatch.setattr(Connection, "perform", note)
    return works


def batch(api: Api, op: str, *bodies: Body) -> list[Body]:
    requests = [{"op": op, "body": body} for body in bodies]
    answers: list[Body] = api.ok("/batch", {"requests": requests})["responses"]
    return answers


def numbered(body: Body, number: int = MANY) -> list[Body]:
    return [body | {"data": b64u(f"data {one}")} for one in range(number)]


def header_of(jwe: Body) -> Body:
    protected = jwe["jwe"].partition(".")[0] if "jwe" in jwe else jwe["protected"]
    header: Body = json.loads(unb64u(protected))
    return header


def run(service: Service, principal: Principal, requests: list[Body]) -> list[batches.Part]:
    """Answer a batch in this thread, which has no other request."""
    try:
        return batches.run(service.keyring.use, principal, requests, {}, RequestRecord())
    finally:
        current_request.end()


def mac_body(api: Api) -> Body:
    return {"kid": api.create(kty="oct", alg="HS256")["kid"], "alg": "HS256", "data": ""}


def test_macs_are_made_with_one_loan_and_are_each_that_of_its_data(local, works):
    bodies = numbered(mac_body(local))
    works.clear()
    answers = batch(local, "mac", *bodies)
    assert works == ["Series"]
    for body, answer in zip(bodies, answers, strict=True):
        assert answer["status"] == 200
        assert local.ok("/mac", body | {"mac": answer["body"]["mac"]})["valid"] is True


@pytest.mark.parametrize("form", [{}, {"serialization": "compact", "cty": "text/plain"}])
def test_signatures_are_made_with_one_loan_and_are_each_over_its_data(local, works, form):
    kid = local.create(kty="EC", crv="P-256", alg="ES256")["kid"]
    bodies = numbered({"kid": kid, "alg": "ES256", **form}, 5)
    works.clear()
    answers = batch(local, "sign", *bodies)
    assert works == ["Series"]
    for body, answer in zip(bodies, answers, strict=True):
        data = {} if "jws" in answer["body"] else {"data": body["data"]}
        assert local.ok("/verify", answer["body"] | data)["valid"] is True


@pytest.mark.parametrize(("enc", "alg"), [("A256GCM", "A256GCM"), ("A128CBC-HS256",) * 2])
def test_ciphertexts_are_made_with_one_loan_and_hold_each_its_data(local, works, enc, alg):
    kid = local.create(kty="oct", alg=alg)["kid"]
    bodies = numbered({"kid": kid, "alg": "dir", "enc": enc}, 5)
    works.clear()
    answers = batch(local, "encrypt", *bodies)
    assert works == ["Series"]
    opened = [local.ok("/decrypt", answer["body"])["data"] for answer in answers]
    assert opened == [body["data"] for body in bodies]


def test_jwes_are_opened_with_one_loan(local, works):
    kid = local.create(kty="oct", alg="A256GCM")["kid"]
    bodies = numbered({"kid": kid, "alg": "dir", "enc": "A256GCM"})
    jwes = [answer["body"] for answer in batch(local, "encrypt", *bodies)]
    works.clear()
    answers = batch(local, "decrypt", *jwes)
    assert works == ["Series"]
    assert [answer["body"] for answer in answers] == [
        {"kid": kid, "data": body["data"]} for body in bodies
    ]


def test_a_jwe_that_does_not_open_touches_no_other(local):
    kid = local.create(kty="oct", alg="A256GCM")["kid"]
    bodies = numbered({"kid": kid, "alg": "dir", "enc": "A256GCM"}, 6)
    jwes = [answer["body"] for answer in batch(local, "encrypt", *bodies)]
    for bad in (0, 3, 4):
        jwes[bad] |= {"tag": "A" * 22}
    answers = batch(local, "decrypt", *jwes)
    for number, (body, answer) in enumerate(zip(bodies, answers, strict=True)):
        if number in (0, 3, 4):
            assert (answer["status"], answer["body"]["error"]) == (422, "decryption_failed")
        else:
            assert answer["body"] == {"kid": kid, "data": body["data"]}


@pytest.mark.parametrize(
    "key", [{"kty": "EC", "crv": "P-256", "alg": "ES256"}, {"kty": "oct", "alg": "HS256"}]
)
def test_signatures_and_macs_are_verified_with_one_loan(local, works, key):
    kid, op = local.create(**key)["kid"], "mac" if key["kty"] == "oct" else "sign"
    bodies = numbered({"kid": kid, "alg": key["alg"], "serialization": "compact"}, 5)
    jwss = [answer["body"]["jws"].split(".") for answer in batch(local, op, *bodies)]
    others = [*jwss[1:], jwss[0]]
    good = [{"jws": ".".join(jws)} for jws in jwss]
    bad = [{"jws": ".".join((*jws[:2], other[2]))} for jws, other in zip(jwss, others, strict=True)]
    works.clear()
    valid = [answer["body"]["valid"] for answer in batch(local, "verify", *good, *bad)]
    assert works == ["Series"]
    assert valid == [True] * 5 + [False] * 5


def test_what_differs_in_more_than_its_data_is_not_mixed_up(local):
    kids = [local.create(kty="oct", alg="A256GCM")["kid"] for _ in range(2)]
    forms: list[Body] = [
        {},
        {"aad": "None"},  # the word in base64url, and not the absence of one
        {"aad": None},
        {"typ": "JWE"},
        {"cty": "JWE"},
        {"serialization": "compact"},
        {"header": {"typ": "JWE"}},
    ]
    bodies = [
        {"kid": kid, "alg": "dir", "enc": "A256GCM", "data": b64u(f"{kid} {form}"), **form}
        for _ in range(2)
        for form in forms
        for kid in kids
    ]
    for body, answer in zip(bodies, batch(local, "encrypt", *bodies), strict=True):
        alone = local.ok("/encrypt", body)
        assert answer["body"].keys() == alone.keys()
        assert answer["body"].get("aad") == alone.get("aad")
        assert header_of(answer["body"]) == header_of(alone)
        assert local.ok("/decrypt", answer["body"])["data"] == body["data"]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the token fail at MACs of some data, so many times, before it makes them."""
    left: dict[bytes, list[Exception]] = {}
    compute, repeated = mac.compute_twice, mac.repeated

    def fail_first(data: bytes) -> None:
        if errors := left.get(data):
            raise errors.pop()

    def once(keys: Any, row: Any, data: bytes) -> bytes:
        fail_first(data)
        return compute(keys, row, data)

    def repeatedly(keys: Any, row: Any, *, is_checked: bool) -> Any:
        mac_of: Any = repeated(keys, row, is_checked=is_checked)

        def one_more(data: bytes) -> bytes | None:
            fail_first(data)
            made: bytes | None = mac_of(data)
            return made

        return one_more

    monkeypatch.setattr(mac, "compute_twice", once)
    monkeypatch.setattr(mac, "repeated", repeatedly)
    return lambda data, *errors: left.update({data: list(errors)})


@pytest.mark.parametrize("error", [FunctionFailed, KeyHandleInvalid])
@pytest.mark.parametrize(
    ("times", "expected"),
    [(1, ["Series", "Series"]), (2, ["Series", "Series", "Use", "Series"])],
    ids=["once", "twice"],
)
def test_what_fails_in_a_series_is_tried_again(  # noqa: PLR0913, PLR0917  # fixtures
    local, failing, works, service, error, times, expected
):
    bodies = numbered(mac_body(local))
    failing(b"data 7", *(error() for _ in range(times)))
    works.clear()
    answers = batch(local, "mac", *bodies)
    assert works == expected
    for body, answer in zip(bodies, answers, strict=True):
        assert local.ok("/mac", body | {"mac": answer["body"]["mac"]})["valid"] is True
    assert until(lambda: service.hsm.sessions.lent == 0)  # the suspicion has one, too


def test_what_always_fails_touches_no_other(local, failing):
    bodies = numbered(mac_body(local))
    failing(b"data 0", *(FunctionFailed() for _ in range(9)))
    failing(b"data 7", *(FunctionFailed() for _ in range(9)))
    answers = batch(local, "mac", *bodies)
    assert [one for one in range(MANY) if answers[one]["status"] != 200] == [0, 7]
    for one in (1, 6, 8, MANY - 1):
        assert local.ok("/mac", bodies[one])["mac"] == answers[one]["body"]["mac"]


def test_a_key_that_is_refused_is_refused_each_time(local, works):
    body = mac_body(local)
    local.delete(body["kid"])
    works.clear()
    assert {answer["status"] for answer in batch(local, "mac", *numbered(body))} == {404}
    assert works == []


def test_each_encryption_of_a_series_is_counted(local, monkeypatch):
    spend = Mock()
    monkeypatch.setattr(EncryptionBudget, "spend", spend)
    kid = local.create(kty="oct", alg="A256GCM")["kid"]
    batch(local, "encrypt", *numbered({"kid": kid, "alg": "dir", "enc": "A256GCM"}))
    assert [call.args[0] for call in spend.call_args_list] == [UUID(kid)] * MANY


def test_a_right_that_is_taken_away_counts_between_the_turns_of_a_series(
    local, service, monkeypatch
):
    monkeypatch.setattr("hsm.life.series.TURN_SECONDS", 0.0)  # each is a turn
    kid = local.create(kty="oct", alg="HS256")["kid"]
    registry = service.registry
    registry.grants.put(UUID(kid), BOB, [Right.MAC])
    clock = Mock()
    clock.monotonic.return_value = 0.0
    monkeypatch.setattr(access, "time", clock)
    done: list[int] = []
    each = Hsm.each

    def revoke_after_two(*arguments: Any) -> None:
        each(*arguments)
        done.append(len(arguments[-1]))
        if len(done) == 2:
            registry.grants.put(UUID(kid), BOB, ())
            clock.monotonic.return_value += access.OLDEST_SECONDS

    monkeypatch.setattr(Hsm, "each", revoke_after_two)
    requests: list[Body] = [
        {"op": "mac", "body": {"kid": kid, "alg": "HS256", "data": ""}} for _ in range(5)
    ]
    parts = run(service, BOB, requests)
    assert [part.answer.status for part in parts] == [200, 200, 403, 403, 403]
    assert done == [1, 1]


def test_after_its_time_no_turn_of_a_batch_begins(local, service, monkeypatch):
    monkeypatch.setattr("hsm.life.series.TURN_SECONDS", 0.0)
    clock = Mock()
    clock.monotonic.return_value = 0.0
    monkeypatch.setattr(batches, "time", clock)
    each = Hsm.each

    def take_long(*arguments: Any) -> None:
        each(*arguments)
        clock.monotonic.return_value += batches.LONGEST_SECONDS

    monkeypatch.setattr(Hsm, "each", take_long)
    requests: list[Body] = [{"op": "mac", "body": body} for body in numbered(mac_body(local), 4)]
    everybody = Principal("anonymous")
    parts = run(service, everybody, requests)
    assert [part.answer.status for part in parts] == [200, 200, 503, 503]
