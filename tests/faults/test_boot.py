"""Workers that start while something is wrong: alive, patient, and ready when it is mended."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from scripts.throwaway import make_token
from tests.faults.control import Fault
from tests.faults.service import Service, use
from tests.shared.command import jose_hsm
from tests.shared.waiting import START, until

PIN_EXPIRED = 0xA3
PIN_LOCKED = 0xA4
WATCHED_SECONDS = 1.5
HMAC = {"kty": "oct", "alg": "HS256"}
EC = {"kty": "EC", "crv": "P-256", "alg": "ES256"}


def assert_waiting(service: Service) -> None:
    """The service answers, with 503, and its workers stay."""
    until(lambda: service.faults.boots >= service.expected_boots)
    deadline = time.monotonic() + WATCHED_SECONDS
    while time.monotonic() < deadline:
        answer = service.api.post("/keys", HMAC)
        assert answer.refusal == (503, "unavailable")
        assert answer.headers["Retry-After"]
        time.sleep(0.2)
    assert service.process.poll() is None
    assert service.faults.boots == service.expected_boots


def test_a_module_that_is_not_there_is_503_and_no_respawn_storm(serve_faulty):
    with serve_faulty(workers=2, JOSE_HSM_PKCS11_MODULE="/nonexistent/module.so") as service:
        assert_waiting(service)


def test_a_token_without_its_configuration_is_opened_when_that_comes(serve_faulty, tmp_path):
    settings = make_token(tmp_path / "state")
    conf = Path(settings["SOFTHSM2_CONF"])
    conf.rename(tmp_path / "elsewhere")
    with serve_faulty(settings=settings) as service:
        assert_waiting(service)
        (tmp_path / "elsewhere").rename(conf)  # whole at once, however slow we are
        service.wait_until_ready()
        service.assert_sound()


def test_a_token_that_is_gone_at_boot_is_opened_when_it_comes(serve_faulty, tmp_path):
    settings = make_token(tmp_path / "state")
    tokens = tmp_path / "state" / "tokens"
    tokens.rename(tmp_path / "elsewhere")
    with serve_faulty(workers=2, settings=settings) as service:
        assert_waiting(service)
        (tmp_path / "elsewhere").rename(tokens)
        service.wait_until_ready()
        service.assert_sound()


def test_no_login_is_tried_on_another_token(serve_faulty):
    with serve_faulty(JOSE_HSM_TOKEN_LABEL="another") as service:
        assert_waiting(service)
        assert service.faults.calls("C_Login") == 0


def try_a_wrong_pin(
    serve_faulty: Callable[..., AbstractContextManager[Service]], tmp_path: Path, *, workers: int
) -> None:
    settings = make_token(tmp_path / "state")
    pin = Path(settings["JOSE_HSM_PIN_FILE"])
    pin.rename(tmp_path / "right")
    pin.touch(mode=0o600)
    pin.write_text("9999")
    with serve_faulty(workers=workers, settings=settings) as service:
        until((service.state_dir / "pin.latch").exists)  # else the one who tries it may be killed
        assert_waiting(service)
        for worker in service.workers[:2]:
            service.kill_worker(worker)
        assert_waiting(service)
        service.reload()
        assert_waiting(service)
        assert service.faults.calls("C_Login") == 1
        assert (service.state_dir / "pin.latch").exists()
        (tmp_path / "right").rename(pin)
        service.wait_until_ready(within=START)
        assert service.faults.calls("C_Login") == 1 + workers
        service.assert_sound()


def test_a_wrong_pin_is_tried_once_by_all_workers_and_restarts(serve_faulty, tmp_path):
    try_a_wrong_pin(serve_faulty, tmp_path, workers=2)


@pytest.mark.long
def test_a_wrong_pin_is_tried_once_by_eight_workers(serve_faulty, tmp_path):
    try_a_wrong_pin(serve_faulty, tmp_path, workers=8)


@pytest.mark.parametrize("value", [PIN_LOCKED, pytest.param(PIN_EXPIRED, marks=pytest.mark.long)])
def test_a_pin_that_is_locked_or_expired_is_not_tried_again(serve_faulty, tmp_path, value):
    settings = make_token(tmp_path / "state")
    tokens = tmp_path / "state" / "tokens"
    tokens.rename(tmp_path / "elsewhere")
    with serve_faulty(workers=2, settings=settings) as service:
        service.inject(Fault(function="C_Login", value=value))
        (tmp_path / "elsewhere").rename(tokens)
        until((service.state_dir / "pin.latch").exists)
        assert_waiting(service)
        assert service.faults.calls("C_Login") == 1
        service.heal()
        (service.state_dir / "pin.latch").unlink()  # what the operator does after unlocking
        service.wait_until_ready()
        service.assert_sound()


def test_a_token_is_never_opened_before_the_fork(tmp_path):
    """Its handles are nobody's then, and a worker may find locks taken that nobody gives back."""
    settings = make_token(tmp_path / "state")
    done = jose_hsm({**settings, "GUNICORN_CMD_ARGS": "--preload"}, "serve")
    assert done.returncode == 1
    assert done.stderr == (
        "jose-hsm: --preload is not supported: each worker opens the token for itself\n"
    )


ALL = """
    CKM_RSA_PKCS_KEY_PAIR_GEN CKM_RSA_X_509 CKM_RSA_PKCS_OAEP CKM_SHA256_RSA_PKCS
    CKM_SHA256_RSA_PKCS_PSS CKM_EC_KEY_PAIR_GEN CKM_ECDSA CKM_EC_EDWARDS_KEY_PAIR_GEN CKM_EDDSA
    CKM_GENERIC_SECRET_KEY_GEN CKM_SHA256_HMAC CKM_AES_KEY_GEN CKM_AES_GCM CKM_AES_KEY_WRAP
""".split()  # noqa: SIM905  # as in the standard, and readable
REMOVED = {
    "CKM_SHA256_HMAC": ({"kty": "oct", "alg": "HS256"}, "/mac", {"alg": "HS256"}),
    "CKM_EDDSA": ({"kty": "OKP", "alg": "EdDSA"}, "/sign", {"alg": "EdDSA"}),
    "CKM_AES_GCM": ({"kty": "oct", "alg": "A256GCM"}, "/encrypt", {"alg": "dir", "enc": "A256GCM"}),
}


@pytest.mark.parametrize("mechanism", REMOVED)
def test_a_token_without_a_mechanism_serves_all_the_others(serve_faulty, tmp_path, mechanism):
    settings = make_token(tmp_path / "state")
    left = ",".join(each for each in ALL if each != mechanism)
    with Path(settings["SOFTHSM2_CONF"]).open("a") as conf:
        conf.write(f"slots.mechanisms = {left}\n")
    members, path, body = REMOVED[mechanism]
    with serve_faulty(settings=settings) as service:
        key = service.create(**EC)
        assert use(service.api, key) == 200
        answer = service.api.post("/keys", members)
        if answer.status == 200:
            answer = service.api.post(path, {**body, "kid": answer.body["kid"], "data": ""})
        assert answer.refusal == (422, "unsupported_algorithm")
        assert use(service.api, key) == 200
