"""From creation to destruction: states, owners, both halves, and two who delete at once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from pkcs11 import Attribute

from app.registry.databases.engines import engine_of
from app.registry.tables import keys
from app.service import service_of
from hsm.life.work import Errand
from hsm.storage import token_store
from scripts.tokens import SEVERAL
from tests.shared.api import Api, b64u, header, leave_out_if_lacking
from tests.shared.waiting import CHANGE, LONGEST_ANSWER

RETIRED = ("deactivated", "compromised")
NOT_FOUND = (404, "not_found")
MISFIT = (422, "crypto_failure")


@pytest.fixture(scope="module")
def write(config: Any) -> Iterator[Callable[..., None]]:
    """Write members of a row straight into the registry."""
    engine = engine_of(config.registry_url)

    def write(kid: str, **values: object) -> None:
        with engine.begin() as connection:
            done = connection.execute(keys.update().where(keys.c.kid == kid).values(**values))
            assert done.rowcount == 1

    yield write
    engine.dispose()


def _objects(application: Any, kid: str) -> int:
    def count(_token: Any, session: Any) -> int:
        return len({found.handle for found in session.find({Attribute.ID: UUID(kid).bytes})})

    return int(service_of(application).hsm._connection.perform(Errand(verb=count)))


@pytest.fixture(scope="module")
def family(local: Any) -> Iterator[dict[str, Any]]:
    """A key of each kind with what was made by it, as a request for each endpoint."""
    made = {
        "enc": local.create(kty="oct", alg="A256GCM"),
        "mac": local.create(kty="oct", alg="HS256"),
        "sig": local.create(kty="EC", crv="P-256", alg="ES256"),
        "rsa": local.create(kty="RSA", alg="RSA-OAEP"),
    }
    kids = {name: key["kid"] for name, key in made.items()}
    encrypt = {"kid": kids["enc"], "alg": "dir", "enc": "A256GCM", "data": "AA"}
    transport = {"kid": kids["rsa"], "alg": "RSA-OAEP", "enc": "A256GCM", "data": "AA"}
    sign = {"kid": kids["sig"], "alg": "ES256", "data": "AA"}
    mac = {"kid": kids["mac"], "alg": "HS256", "data": "AA"}
    jwe = local.ok("/encrypt", transport)
    yield {
        "kids": kids,
        "public": [made["sig"]["kid_public"], made["rsa"]["kid_public"]],
        "producing": [
            ("/encrypt", encrypt),
            ("/encrypt", transport),
            ("/sign", sign),
            ("/mac", mac),
        ],
        "consuming": [
            ("/decrypt", local.ok("/encrypt", encrypt)),
            ("/decrypt", jwe),
            ("/keys/unwrap", jwe),
            ("/verify", local.ok("/sign", sign) | {"data": "AA"}),
            ("/mac", mac | {"mac": local.ok("/mac", mac)["mac"]}),
        ],
    }
    for kid in kids.values():
        assert local.delete(kid).status == 204


@pytest.fixture
def in_state(family: Any, write: Callable[..., None]) -> Iterator[Callable[[str], None]]:
    """Put the whole family into a state, for one test.

    It is in it as of now: what seems to be unfinished for a minute is cleared away by the janitors
    of other services on this registry.
    """

    def put(state: str) -> None:
        for kid in family["kids"].values():
            write(kid, state=state, changed_at=datetime.now(UTC))

    yield put
    put("active")


@pytest.mark.parametrize("state", RETIRED)
def test_a_retired_key_protects_nothing_new(state, family, in_state, local):
    in_state(state)
    assert [local.post(*request).refusal for request in family["producing"]] == [MISFIT] * 4


@pytest.mark.parametrize("state", RETIRED)
def test_a_retired_key_still_opens_and_verifies(state, family, in_state, local):
    in_state(state)
    answers = [local.ok(*request) for request in family["consuming"]]
    assert [answer.get("valid", True) for answer in answers] == [True] * 5
    assert [answer["data"] for answer in answers if "data" in answer] == ["AA"] * 2
    (unwrapped,) = [answer for answer in answers if "kty" in answer]
    assert local.delete(unwrapped["kid"]).status == 204


@pytest.mark.parametrize("state", RETIRED)
def test_a_retired_key_can_be_destroyed(state, write, local, application):
    kid = local.create(kty="oct", alg="HS256")["kid"]
    write(kid, state=state)
    assert local.delete(kid).status == 204
    assert _objects(application, kid) == 0


@pytest.mark.parametrize("state", ["pending", "destroyed"])
def test_unfinished_keys_are_found_by_nobody(state, family, in_state, local):
    in_state(state)
    for request in (*family["producing"], *family["consuming"]):
        assert local.post(*request).refusal == NOT_FOUND
    for kid in (*family["kids"].values(), *family["public"]):
        assert local.delete(kid).refusal == NOT_FOUND


def test_who_does_not_own_a_key_is_denied_everywhere(family, write, local):
    for kid in family["kids"].values():
        write(kid, owner="somebody else")
    try:
        for request in (*family["producing"], *family["consuming"]):
            answer = local.post(*request)
            assert answer.refusal == (403, "forbidden"), request
            assert answer.body["description"] == "Access denied"
        for kid in (*family["kids"].values(), *family["public"]):
            assert local.delete(kid).refusal == (403, "forbidden")
    finally:
        for kid in family["kids"].values():
            write(kid, owner="anonymous")


def test_the_right_is_checked_before_the_fit(family, write, local):
    kid = family["kids"]["mac"]
    write(kid, owner="somebody else", state="deactivated")
    try:
        request = {"kid": kid, "alg": "HS512", "data": ""}
        assert local.post("/mac", request).refusal == (403, "forbidden")
    finally:
        write(kid, owner="anonymous", state="active")


def test_unknown_kids_are_not_found_whoever_asks(family, local):
    for path, body in (*family["producing"], *family["consuming"]):
        unknown = str(uuid4())
        if "protected" in body:
            algorithms = {"alg": "RSA-OAEP", "enc": "A256GCM"}
            if path == "/verify":
                algorithms = {"alg": "ES256"}
            elif not body["encrypted_key"]:
                algorithms = {"alg": "dir", "enc": "A256GCM"}
            request = body | {"protected": header(**algorithms, kid=unknown)}
        else:
            request = body | {"kid": unknown}
        assert local.post(path, request).refusal == NOT_FOUND
    assert local.delete(str(uuid4())).refusal == NOT_FOUND


PAIRS = [
    {"kty": "RSA"},
    {"kty": "RSA", "alg": "RSA-OAEP-256"},
    {"kty": "EC", "crv": "P-384"},
    {"kty": "OKP"},
]


@pytest.mark.parametrize("body", PAIRS, ids=lambda body: "-".join(body.values()))
@pytest.mark.parametrize("half", ["kid", "kid_public"])
def test_either_kid_destroys_both_halves(half, body, local, application, lacks):
    key = local.create(**body)
    assert _objects(application, key["kid"]) == 2
    assert local.delete(key[half]).status == 204
    assert _objects(application, key["kid"]) == 0
    for kid in (key["kid"], key["kid_public"]):
        assert local.delete(kid).refusal == NOT_FOUND
        for alg in {"RS256", "ES384", "EdDSA"} - lacks:
            request = {"kid": kid, "alg": alg, "data": ""}
            assert local.post("/sign", request).refusal == NOT_FOUND
        verification = {
            "protected": header(alg="RS256", kid=kid),
            "signature": b64u(bytes(256)),
            "data": "",
        }
        assert local.post("/verify", verification).refusal == NOT_FOUND


def test_a_destroyed_secret_key_is_gone(local, application):
    kid = local.create(kty="oct", alg="A128GCM")["kid"]
    request = {"kid": kid, "alg": "dir", "enc": "A128GCM", "data": ""}
    jwe = local.ok("/encrypt", request)
    assert local.delete(kid).status == 204
    assert _objects(application, kid) == 0
    assert local.post("/encrypt", request).refusal == NOT_FOUND
    assert local.post("/decrypt", jwe).refusal == NOT_FOUND
    assert local.delete(kid).refusal == NOT_FOUND


@pytest.mark.parametrize("alg", ["RSA-OAEP", "RSA-OAEP-256"])
def test_unwrapped_keys_outlive_the_key_that_unwrapped_them(alg, local):
    rsa = local.create(kty="RSA", alg=alg)["kid"]
    jwe = local.ok("/encrypt", {"kid": rsa, "alg": alg, "enc": "A256GCM", "data": "AA"})
    kid = local.ok("/keys/unwrap", jwe)["kid"]
    assert local.delete(rsa).status == 204
    direct = {"kid": kid, "alg": "dir", "enc": "A256GCM", "data": b64u("still here")}
    assert local.ok("/decrypt", local.ok("/encrypt", direct))["data"] == b64u("still here")
    assert local.delete(kid).status == 204


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Clients that act at the same time."""
    with ThreadPoolExecutor(4) as executor:
        yield executor


def test_of_two_who_delete_one_key_at_once_one_does(server, live, threads, lacks):
    leave_out_if_lacking(lacks, SEVERAL)
    rounds = 50
    barrier = threading.Barrier(2)

    def delete(kid: str) -> int:
        client = Api.over_http(server)  # a connection of its own, to either worker
        barrier.wait(timeout=CHANGE.seconds)
        return client.delete(kid).status

    found = []
    for _ in range(rounds):
        kid = live.create(kty="EC", crv="P-256")["kid"]
        found.append(sorted(threads.map(delete, [kid, kid])))
    assert found == [[204, 404]] * rounds


def test_who_deletes_a_key_may_find_what_is_gone_a_moment_later(local, monkeypatch):
    kid, find = local.create(kty="EC", crv="P-256")["kid"], token_store._found

    def found_and_gone(*place: Any) -> Any:
        found = find(*place)
        for each in found:
            each.destroy()
        return found

    monkeypatch.setattr(token_store, "_found", found_and_gone)
    assert local.delete(kid).status == 204


def test_no_signature_is_made_after_the_deletion(server, live, threads, application, lacks):
    leave_out_if_lacking(lacks, SEVERAL)
    for _ in range(8):
        kid = live.create(kty="EC", crv="P-256", alg="ES256")["kid"]
        gone, signed = threading.Event(), threading.Event()
        started = threading.Barrier(4)

        def sign_until_gone(
            kid: str = kid,
            gone: threading.Event = gone,
            signed: threading.Event = signed,
            started: threading.Barrier = started,
        ) -> list[tuple[bool, int]]:
            client = Api.over_http(server)
            answers: list[tuple[bool, int]] = []
            started.wait(timeout=CHANGE.seconds)
            while len(answers) < 5 or not answers[-5][0]:
                was_gone = gone.is_set()
                answer = client.post("/sign", {"kid": kid, "alg": "ES256", "data": "AA"})
                answers.append((was_gone, answer.status))
                if answer.status == 200:
                    signed.set()
            return answers

        signing = [threads.submit(sign_until_gone) for _ in range(3)]
        started.wait(timeout=CHANGE.seconds)
        assert signed.wait(CHANGE.seconds)
        assert live.delete(kid).status == 204
        gone.set()
        answers = {
            answer for future in signing for answer in future.result(timeout=LONGEST_ANSWER.seconds)
        }
        assert answers <= {(False, 200), (False, 404), (True, 404)}
        assert {(False, 200), (True, 404)} <= answers
        assert _objects(application, kid) == 0
