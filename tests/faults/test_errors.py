"""What a token may answer to a single call, and what becomes of it."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.faults.control import EVERY, Fault
from tests.faults.service import Service, check, outcome, protect, use
from tests.shared import injector
from tests.shared.api import b64u, unb64u
from tests.shared.waiting import until

HMAC = {"kty": "oct", "alg": "HS256"}
EC = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
GCM = {"kty": "oct", "alg": "A256GCM"}
RSA = {"kty": "RSA", "alg": "RS256"}
PSS = {"kty": "RSA", "alg": "PS256"}
OAEP = {"kty": "RSA", "alg": "RSA-OAEP"}
KW = {"kty": "oct", "alg": "A256KW"}
OAEP_256 = {"kty": "RSA", "alg": "RSA-OAEP-256"}
ED25519 = {"kty": "OKP", "alg": "EdDSA"}

ALGS = {key["alg"]: key for key in (HMAC, EC, GCM, RSA, PSS, OAEP, OAEP_256, ED25519)}
TELL_TALE = {"C_Sign": ("RS256", "PS256", "ES256", "EdDSA"), "C_Encrypt": ("A256GCM", "RSA-OAEP")}

DEVICE_REMOVED = 0x32
RANDOM_NO_RNG = 0x121


def test_a_slow_token_is_waited_for(service):
    key = service.create(**HMAC)
    service.inject(Fault(function="C_Sign", delay_seconds=0.3))
    assert use(service.api, key) == 200


def test_more_requests_than_a_slow_token_can_serve_wait_briefly_and_get_503(service):
    key = service.create(**HMAC)
    service.inject(Fault(function="C_Sign", delay_seconds=1.5))
    with ThreadPoolExecutor(32) as clients:
        answers = list(clients.map(lambda _: protect(service.api, key), range(32)))
    assert {answer.status for answer in answers} == {200, 503}
    assert all(a.headers["Retry-After"] for a in answers if a.status == 503)


def test_a_token_without_free_sessions_is_busy_and_is_not_opened_anew(serve_faulty):
    with serve_faulty() as service:
        key = service.create(**HMAC)
        logins = service.faults.calls("C_Login")
        service.inject(Fault(function="C_OpenSession", value=injector.SESSION_COUNT))
        with ThreadPoolExecutor(8) as clients:  # more than have been opened
            statuses = set(clients.map(lambda _: use(service.api, key), range(64)))
        assert statuses <= {200, 503}
        service.assert_sound()
        assert service.faults.calls("C_Login") == logins


@pytest.mark.parametrize("function", ["C_SignInit", "C_Sign", "C_FindObjectsInit"])
def test_a_request_survives_being_logged_out_once(service, function):
    key = service.create(**HMAC)
    service.inject(Fault(function=function, value=injector.USER_NOT_LOGGED_IN, times=1))
    assert use(service.api, key) == 200


def test_a_token_that_hides_its_keys_never_makes_a_404(serve_faulty):
    with serve_faulty() as service:
        keys = [service.create(**HMAC), service.create(**EC)]
        service.reload()  # nothing is remembered of them
        service.wait_until_ready()
        service.inject(Fault(function="C_FindObjects", finds_nothing=True))
        statuses = {use(service.api, key) for key in keys for _ in range(4)}
        assert statuses <= {200, 503}
        service.assert_sound()


def test_a_token_that_hides_its_keys_keeps_none_that_was_destroyed(serve_faulty):
    with serve_faulty() as service:
        service.wait_until_ready()
        kid = service.api.create(**EC)["kid"]
        service.inject(Fault(function="C_FindObjects", finds_nothing=True))
        assert service.api.delete(kid).status in {204, 503}
        service.assert_sound()
        assert "left alone): 0\n" in service.reconcile()


@pytest.mark.parametrize("value", [injector.SESSION_HANDLE_INVALID, injector.OPERATION_ACTIVE])
@pytest.mark.parametrize("function", ["C_SignInit", "C_Sign"])
def test_a_bad_session_is_thrown_away_and_nobody_notices(service, function, value):
    key = service.create(**HMAC)
    service.inject(Fault(function=function, value=value, times=1))
    assert use(service.api, key) == 200


@pytest.mark.parametrize(
    "fault",
    [
        Fault(function="C_GenerateKeyPair", value=DEVICE_REMOVED, afterwards=True),
        Fault(function="C_GetAttributeValue", value=injector.DEVICE_ERROR),
    ],
    ids=lambda fault: fault.function,
)
def test_a_pair_that_was_made_and_cannot_be_used_leaves_nothing_after_reconcile(
    serve_faulty, fault
):
    with serve_faulty() as service:
        service.wait_until_ready()
        service.inject(fault)
        answer = service.api.post("/keys", EC)
        assert (answer.status, outcome(answer)) == (503, "unavailable")
        service.assert_sound()
        assert "left alone): 0\n" in service.reconcile()


@pytest.mark.parametrize(
    ("function", "alg"), [(name, alg) for name, algs in TELL_TALE.items() for alg in algs]
)
def test_a_corrupted_result_is_never_given_out(service, function, alg):
    key = service.create(**ALGS[alg])
    service.inject(Fault(function=function, corrupts=True))
    answer = protect(service.api, key)
    assert (answer.status, outcome(answer)) in {(500, "internal_error"), (503, "unavailable")}


def test_a_result_that_is_corrupted_once_is_right_or_refused(service):
    key = service.create(**EC)
    service.inject(Fault(function="C_Sign", corrupts=True, times=1))
    answer = protect(service.api, key)
    assert answer.status in {200, 500, 503}
    if answer.status == 200:
        service.heal()
        assert check(service.api, key, answer.body).status == 200


def test_a_good_mac_is_not_called_bad_by_a_corrupted_result(service):
    key = service.create(**HMAC)
    made = protect(service.api, key).body
    service.inject(Fault(function="C_Sign", corrupts=True, times=1))
    assert check(service.api, key, made).status in {200, 500, 503}  # a 200 is right


def test_a_bad_tag_of_a_healthy_token_is_422(service):
    key = service.create(**GCM)
    jwe = protect(service.api, key).body
    answer = service.api.post("/decrypt", {**jwe, "tag": b64u(bytes(16))})
    assert (answer.status, outcome(answer)) == (422, "decryption_failed")


@pytest.mark.parametrize("function", ["C_DecryptInit", "C_Decrypt"])
def test_a_good_tag_is_not_called_bad_by_a_token_in_trouble_for_a_moment(service, function):
    """This token says CKR_GENERAL_ERROR of a bad tag, too, and the canary works again."""
    key = service.create(**GCM)
    jwe = protect(service.api, key).body
    service.inject(Fault(function=function, value=injector.GENERAL_ERROR, times=1))
    assert check(service.api, key, jwe).status == 200


@pytest.mark.parametrize("value", [injector.GENERAL_ERROR, injector.DEVICE_ERROR], ids=hex)
@pytest.mark.parametrize(
    ("key", "function"),
    [(OAEP, "C_UnwrapKey"), (KW, "C_UnwrapKey"), (OAEP_256, "C_DecryptInit")],
    ids=str,
)
def test_a_good_message_is_not_called_bad_by_a_token_that_once_does_not_unwrap(
    service, key, function, value
):
    """AWS CloudHSM says CKR_DEVICE_ERROR when it is throttled."""
    key = service.create(**key)
    jwe = protect(service.api, key).body
    service.inject(Fault(function=function, value=value, times=1))
    assert check(service.api, key, jwe).status == 200
    service.inject(Fault(function=function, value=value, times=1))
    assert protect(service.api, key).status == 200  # what is new is opened, too


@pytest.mark.parametrize("function", ["C_VerifyInit", "C_Verify"])
@pytest.mark.parametrize("key", [RSA, PSS, EC, ED25519], ids=lambda key: key["alg"])
def test_a_good_signature_is_not_called_bad_by_a_token_that_cannot_verify(service, function, key):
    """The canary works: it shows nothing of public keys."""
    key = service.create(**key)
    made = protect(service.api, key).body
    for times, status in ((1, 200), (None, 503)):
        service.inject(Fault(function=function, value=injector.GENERAL_ERROR, times=times))
        assert check(service.api, key, made).status == status


def test_a_good_tag_on_a_broken_token_is_503(serve_faulty):
    with serve_faulty() as service:
        key = service.create(**GCM)
        jwe = protect(service.api, key).body
        service.inject(Fault(function="C_Decrypt", value=injector.GENERAL_ERROR))
        assert service.api.post("/decrypt", jwe).status == 503
        service.assert_sound()


def encrypted(service: Service, key: Mapping[str, Any]) -> Any:
    """Encrypt, or be told 503 by a worker that is about to open its token anew."""
    answer = protect(service.api, key)
    assert answer.status in {200, 503}
    return answer.body if answer.status == 200 else None


def test_without_random_numbers_nothing_is_encrypted(serve_faulty):
    with serve_faulty() as service:
        key = service.create(**GCM)
        service.inject(Fault(function="C_GenerateRandom", value=RANDOM_NO_RNG))
        answers = [protect(service.api, key) for _ in range(4)]
        assert {answer.status for answer in answers} <= {500, 503}
        service.heal()
        service.wait_until_ready()
        ivs = [unb64u(until(lambda: encrypted(service, key))["iv"]) for _ in range(8)]
        assert len(set(ivs)) == 8
        service.assert_sound()


def test_every_call_that_fails_once_is_right_or_503(service):
    key = service.create(**HMAC)
    for value in (injector.GENERAL_ERROR, injector.FUNCTION_FAILED, DEVICE_REMOVED):
        service.inject(Fault(function=EVERY, value=value, times=1))
        until(lambda: use(service.api, key) in {200, 503})
        service.heal()
        service.wait_until_ready()
