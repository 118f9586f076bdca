"""What the token says is looked at before anybody gets it, and nobody waits for it for ever."""

import ctypes
import errno
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

import hsm
from hsm import Hsm, KeyRef, KeySpec, TokenUnavailable
from hsm.life.rsa_lane import Generations
from hsm.life.watchdog import EXIT_STATUS
from hsm.operations.jwe import OPENINGS
from hsm.software import verify
from tests.shared import injector
from tests.shared.bodies import ML_DSA
from tests.shared.drivers import end_of, result_of
from tests.shared.injector import Injector
from tests.shared.refs import new_ref
from tests.shared.waiting import GIVEN_UP, PATIENCE_SECONDS, until
from tests.token.test_connection import (
    AES,
    ES256,
    _injector,
    _looked_after_on_suspicion_only,
    _outcome,
    _started,
)

SPECS = {
    "RS256": KeySpec(kty="RSA", alg="RS256", bits=2048),
    "PS384": KeySpec(kty="RSA", alg="PS384", bits=2048),
    "ES256": ES256,
    "ES384": KeySpec(kty="EC", alg="ES384", crv="P-384"),
    "ES512": KeySpec(kty="EC", alg="ES512", crv="P-521"),
    "ES256K": KeySpec(kty="EC", alg="ES256K", crv="secp256k1"),
    "EdDSA": KeySpec(kty="OKP", alg="EdDSA", crv="Ed25519"),
    "Ed448": KeySpec(kty="OKP", alg="Ed448", crv="Ed448"),
    "HS256": KeySpec(kty="oct", alg="HS256", bits=256),
    "A256GCM": AES,
    "A128CBC-HS256": KeySpec(kty="oct", alg="A128CBC-HS256", bits=256),
    "RSA-OAEP": KeySpec(kty="RSA", alg="RSA-OAEP", bits=2048),
    "RSA-OAEP-256": KeySpec(kty="RSA", alg="RSA-OAEP-256", bits=2048),
    "A256GCMKW": KeySpec(kty="oct", alg="A256GCMKW", bits=256),
    "A192KW": KeySpec(kty="oct", alg="A192KW", bits=192),
    "ECDH-ES": KeySpec(kty="EC", alg="ECDH-ES", crv="P-256"),
    "ECDH-ES+A128KW": KeySpec(kty="OKP", alg="ECDH-ES+A128KW", crv="X25519"),
}


def flip_once(original: Callable[..., int], output: int, *words: int) -> int:
    """Call ``original`` and flip a bit of what it has put out."""
    answer = int(original(*words))
    if words[output]:
        ctypes.c_ubyte.from_address(words[output]).value ^= 1
    return answer


def corrupt(chaos: Injector, function: str, output: int) -> None:
    chaos.replace(function, lambda original, *words: flip_once(original, output, *words))


def use(token: Hsm, key: KeyRef, alg: str) -> Any:
    if alg in hsm.CONTENT_ENCRYPTIONS:
        return token.encrypt(key, "dir", alg, b"plain", lambda _: b"aad")
    if alg in hsm.KEY_MANAGEMENTS:
        return token.encrypt(key, alg, "A256GCM", b"plain", lambda _: b"aad")
    if alg.startswith("HS"):
        return token.mac(key, alg, b"data")
    return token.sign(key, alg, b"data")


@pytest.mark.parametrize("alg", SPECS)
def test_a_result_with_a_flipped_bit_is_given_to_nobody(token, chaos, alg):
    key = new_ref(SPECS[alg])
    token.generate(key)
    once: list[bool] = []
    own_thread = threading.get_ident()

    def flip(output: int) -> Callable[..., int]:
        def call(original: Callable[..., int], *words: int) -> int:
            # The token is looked after in another thread, which has calls of its own.
            if once or not words[output] or threading.get_ident() != own_thread:
                return int(original(*words))
            once.append(True)
            return flip_once(original, output, *words)

        return call

    for function in ("C_Encrypt", "C_Sign"):
        chaos.replace(function, flip(3))
    chaos.replace("C_WrapKey", flip(4))
    with pytest.raises(hsm.WrongResult) as raised:
        use(token, key, alg)
    assert once
    assert str(raised.value) == "Internal server error"
    chaos.heal()
    use(token, key, alg)
    token.destroy(key)


@pytest.fixture
def long_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, the turn of a series is not over."""
    monkeypatch.setattr("hsm.life.series.TURN_SECONDS", 3600.0)


@pytest.mark.parametrize(
    ("verb", "alg", "given"),
    [
        ("mac", "HS256", (b"data",)),
        ("sign", "ES256", (b"data",)),
        ("sign", "PS384", (b"data",)),
        ("encrypt", "A256GCM", (b"plain", lambda _: b"aad")),
    ],
)
@pytest.mark.usefixtures("long_turn")
def test_in_a_series_too_a_result_with_a_flipped_bit_is_given_to_nobody(
    token, chaos, verb, alg, given
):
    key = new_ref(SPECS[alg])
    token.generate(key)
    seen: list[int] = []
    own_thread = threading.get_ident()

    def flip_the_third(original: Callable[..., int], *words: int) -> int:
        if not words[3] or threading.get_ident() != own_thread:
            return int(original(*words))
        seen.append(1)
        return flip_once(original, 3, *words) if len(seen) == 3 else int(original(*words))

    for function in ("C_Encrypt", "C_Sign"):
        chaos.replace(function, flip_the_third)
    done: list[Any] = []
    with pytest.raises(hsm.WrongResult):
        token.each(verb, key, alg, [given] * 5, done)
    assert len(done) == (1 if verb == "mac" else 2)  # a MAC is made twice
    chaos.heal()
    token.destroy(key)


@pytest.mark.usefixtures("long_turn")
def test_in_a_series_too_a_mac_that_could_not_be_computed_is_none(token, chaos):
    """Least of all an empty one."""
    key = new_ref(SPECS["HS256"])
    done: list[bool] = []
    token.generate(key)
    chaos.fail_own("C_SignInit", injector.DEVICE_ERROR, times=1)
    token.each("verify_mac", key, "HS256", [(b"data", b"")] * 2, done)
    assert done == [False, False]
    chaos.fail_own("C_SignInit", injector.DEVICE_ERROR)
    with pytest.raises(TokenUnavailable):
        token.each("verify_mac", key, "HS256", [(b"data", b"")], done)
    assert done == [False, False]
    chaos.heal()
    token.destroy(key)


@pytest.mark.parametrize(("verb", "alg"), [("sign", "ES256"), ("mac", "HS256")])
def test_in_a_series_too_nothing_at_all_is_no_result(token, chaos, verb, alg):
    key = new_ref(SPECS[alg])
    done: list[bytes] = []
    token.generate(key)

    def make_nothing(original: Callable[..., int], *words: int) -> int:
        answer = int(original(*words))
        ctypes.c_ulong.from_address(words[4]).value = 0
        return answer

    chaos.replace_own("C_Sign", make_nothing)
    with pytest.raises(hsm.WrongResult):
        token.each(verb, key, alg, [(b"data",)], done)
    assert done == []
    chaos.heal()
    token.destroy(key)


@pytest.mark.usefixtures("long_turn")
def test_in_a_series_too_nothing_is_read_behind_the_end_of_a_result(token, chaos):
    key = new_ref(SPECS["HS256"])
    done: list[bytes] = []
    token.generate(key)
    lied: list[int] = []

    def lie_once(original: Callable[..., int], *words: int) -> int:
        answer = int(original(*words))
        if not lied:
            lied.append(1)
            ctypes.c_ulong.from_address(words[4]).value = 33
        return answer

    chaos.replace_own("C_Sign", lie_once)
    token.each("mac", key, "HS256", [(b"data",)] * 2, done)
    chaos.heal()
    assert lied
    assert done == [token.mac(key, "HS256", b"data")] * 2
    token.destroy(key)


@pytest.mark.parametrize(
    ("alg", "decryptions"),
    [("dir", 1), ("A192KW", 1), ("RSA-OAEP", 1), ("ECDH-ES+A128KW", 1), ("A256GCMKW", 2)],
)
def test_a_bad_tag_is_looked_at_twice_and_no_more(token, chaos, alg, decryptions):
    """A token may be in trouble for a moment; but anybody can send many."""
    key = new_ref(SPECS["A256GCM" if alg == "dir" else alg])
    token.generate(key)
    made = token.encrypt(key, alg, "A256GCM", b"plain", lambda _: b"aad")
    sealed = made.sealed._replace(tag=bytes(16))
    calls = chaos.count_own("C_DecryptInit")
    with pytest.raises(hsm.DecryptionFailed):
        token.decrypt(key, alg, "A256GCM", made.encrypted_key, sealed, b"aad", made.agreement)
    assert calls["C_DecryptInit"] == OPENINGS * (decryptions + 1)  # that of the canary, too
    chaos.heal()
    token.destroy(key)


def test_a_wrong_hash_of_what_was_agreed_on_is_given_to_nobody(token, chaos):
    key = new_ref(SPECS["ECDH-ES"])
    token.generate(key)
    hashes = []

    def flip_first(original: Callable[..., int], *words: int) -> int:
        if words[1]:  # else it is asked for the length only
            hashes.append(words[1])
        return flip_once(original, 1, *words) if len(hashes) == 1 else int(original(*words))

    chaos.replace("C_DigestFinal", flip_first)
    with pytest.raises(hsm.WrongResult):
        use(token, key, "ECDH-ES")
    assert len(hashes) == 1 + OPENINGS
    chaos.heal()
    use(token, key, "ECDH-ES")
    token.destroy(key)


def test_a_wrong_signature_is_an_internal_error_over_http(local, application, chaos):
    kid = local.create(kty="EC", crv="P-256", alg="ES256")["kid"]
    corrupt(chaos, "C_Sign", 3)
    answer = local.post("/sign", {"kid": kid, "alg": "ES256", "data": ""})
    assert answer.refusal == (500, "internal_error")


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (OSError(errno.EMFILE, "as of an import"), (503, "unavailable")),
        (OSError(errno.ENOMEM, "as of a thread"), (503, "unavailable")),
        (OSError(errno.EAGAIN, "as of a process"), (503, "unavailable")),
        (MemoryError(), (503, "unavailable")),
        (OSError(errno.EINVAL, "of our own making"), (500, "internal_error")),
    ],
    ids=str,
)
def test_what_the_host_lacks_is_not_our_fault(local, monkeypatch, error, refusal):
    def fail(*_arguments: object) -> None:
        raise error

    key = {"kid": local.create(kty="EC", crv="P-256", alg="ES256")["kid"], "alg": "ES256"}
    with monkeypatch.context() as patched:
        patched.setattr(verify, "is_valid", fail)
        answer = local.post("/sign", key | {"data": ""})
    assert answer.refusal == refusal
    assert ("Retry-After" in answer.headers) == (answer.status == 503)
    assert local.post("/sign", key | {"data": ""}).status == 200


def test_without_random_bytes_nothing_is_encrypted(token, chaos):
    key = new_ref(AES)
    token.generate(key)
    chaos.fail("C_GenerateRandom", 0x121)  # CKR_RANDOM_NO_RNG
    with pytest.raises(hsm.TokenUnavailable):
        token.encrypt(key, "dir", "A256GCM", b"plain", lambda _: b"aad")
    chaos.heal()
    until(lambda: _outcome(lambda: token.destroy(key)) == "done")


def answer_late(*_: int) -> int:
    time.sleep(60)
    return injector.OK


def hang(function: str) -> str:
    """Have ``function`` hang; the process is not to come back from here."""
    token, key = _started(), new_ref(ES256)
    token.generate(key)
    chaos = _injector()
    print('"before"', flush=True)
    connection = token._connection  # only now: a busy machine takes longer than this to open it
    connection._settings = replace(connection._settings, call_seconds=2.0, generation_seconds=2.0)
    chaos.replace(function, answer_late)
    if function.endswith("Session"):  # one is opened in the place of one that is lost
        chaos.fail_own("C_SignInit", injector.SESSION_HANDLE_INVALID, times=1)
    _outcome(lambda: token.sign(key, "ES256", b"data"))
    _outcome(lambda: token.generate(new_ref(SPECS["RS256"])))
    return "came back"


@pytest.mark.parametrize(
    "function", ["C_SignInit", "C_GenerateKeyPair", "C_OpenSession", "C_CloseSession"]
)
def test_a_call_that_hangs_ends_the_process(environment, function):
    done = end_of(environment, hang, function)
    assert (done.returncode, done.stdout.strip()) == (EXIT_STATUS, '"before"')
    assert "does not come back from the token" in done.stderr


@pytest.mark.promise
def test_a_canary_that_falls_silent_is_noticed_without_any_request(environment):
    assert result_of(environment, silence_the_canary) == "noticed"


def silence_the_canary() -> str:
    """Have the token lose its keys while nobody asks for anything."""
    token, chaos = _started(), _injector()
    epoch = token.state.epoch
    chaos.fail("C_EncryptInit", injector.DEVICE_ERROR)
    until(lambda: token.state.phase is hsm.Phase.UNAVAILABLE, within=GIVEN_UP)
    assert token.state.cause in {"lost", "token"}
    chaos.heal()
    until(lambda: token.state.phase is hsm.Phase.READY)
    assert token.state.epoch == epoch + 1
    return "noticed"


def serve_without_gcm() -> dict[str, Any]:
    """Open a token that has no AES-GCM and no AES key wrap."""
    chaos = _injector()

    def without(*mechanisms: int) -> Callable[..., int]:
        def start(original: Callable[..., int], *words: int) -> int:
            mechanism = ctypes.c_ulong.from_address(words[1]).value if words[1] else None
            return 0x70 if mechanism in mechanisms else int(original(*words))

        return start

    for function in ("C_EncryptInit", "C_DecryptInit", "C_WrapKey", "C_UnwrapKey"):
        chaos.replace(function, without(0x1087, 0x2109))  # CKM_AES_GCM, CKM_AES_KEY_WRAP
    token, key = _started(), new_ref(ES256)
    token.generate(key)
    outcome = _outcome(lambda: token.sign(key, "ES256", b"data"))
    token.destroy(key)
    return {
        "sign": outcome,
        "offered": sorted(name for name, offer in token.offers().items() if offer.is_offered),
        "unknown": _outcome(lambda: token.sign(new_ref(ES256), "ES256", b"data")),
    }


def test_a_token_without_aes_gcm_serves_what_it_can(tmp_path):
    from scripts.throwaway import make_token  # noqa: PLC0415  # drivers do without

    found = result_of(make_token(tmp_path / "state"), serve_without_gcm, proves=True)
    assert found["sign"] == "done"
    assert found["unknown"] == "KeyNotFound"
    assert found["offered"] == sorted(
        name
        for name in hsm.ALGORITHMS
        if (name not in ML_DSA and (name in hsm.SIGNATURES or name in hsm.MACS)) or "CBC" in name
    )


def test_what_was_hidden_when_it_was_looked_for_is_destroyed_all_the_same(token, chaos):
    key = new_ref(AES)
    token.generate(key)
    hidden = [3]  # as many searches as are made before the canary is looked for

    def find(original: Callable[..., int], *words: int) -> int:
        hidden[0] -= 1
        if hidden[0] < 0:
            return int(original(*words))
        ctypes.c_ulong.from_address(words[3]).value = 0
        return injector.OK

    chaos.replace_own("C_FindObjects", find)
    token.destroy(key)
    chaos.heal()
    assert key.kid not in token.inventory()


def spoil_the_proof(name: str, says: int | None) -> list[str]:
    """Have ``name`` answer ``says``, or spoil what it makes, for a second of the opening."""
    chaos, spoiled = _injector(), []

    def spoil(original: Callable[..., int], *words: int) -> int:
        spoiled.append(time.monotonic())
        if spoiled[-1] > spoiled[0] + 1:
            return int(original(*words))
        return flip_once(original, 3, *words) if says is None else says

    chaos.replace(name, spoil)
    token = _started()
    return sorted(name for name, offer in token.offers().items() if not offer.is_offered)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("C_Sign", None),
        ("C_Sign", injector.GENERAL_ERROR),
        ("C_GenerateKey", injector.SESSION_CLOSED),
        ("C_GenerateKey", injector.DEVICE_REMOVED),
    ],
)
def test_a_token_that_errs_for_a_second_is_not_believed_to_lack_algorithms(environment, name, says):
    """The canary signs, so it does not meet what befalls the other functions."""
    lacking = result_of(environment, spoil_the_proof, name, says, proves=True)
    assert lacking == sorted([*ML_DSA, "RSA1_5"])


def test_generations_beyond_the_few_that_may_wait_are_refused_at_once():
    lane, free, started = Generations(1), threading.Event(), threading.Semaphore(0)
    outcomes: list[str] = []

    def generate() -> None:
        started.release()
        free.wait(PATIENCE_SECONDS)

    threads = [
        threading.Thread(target=lambda: outcomes.append(_outcome(lambda: lane.run(generate))))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    started.acquire()
    until(lambda: len(outcomes) == 20 - 8)
    assert set(outcomes) == {"TokenUnavailable"}
    free.set()
    for thread in threads:
        thread.join()
    assert outcomes.count("done") == 8


def test_a_generation_whose_turn_does_not_come_in_time_is_refused_and_never_begins():
    lane, free, begun = Generations(1, wait_seconds=0.01), threading.Event(), list[str]()

    def generate(name: str) -> None:
        begun.append(name)
        free.wait(PATIENCE_SECONDS)

    def begin_first() -> None:
        while not begun:  # a busy machine may take longer to begin than anybody waits
            with suppress(TokenUnavailable):
                lane.run(partial(generate, "first"))

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(begin_first)
        until(lambda: begun)
        assert _outcome(lambda: lane.run(partial(generate, "second"))) == "TokenUnavailable"
        assert not first.done()  # who has begun is waited for
        free.set()
    until(lambda: _outcome(lambda: lane.run(int)) == "done")
    assert begun == ["first"]


MOST_NICE = 19  # of Linux, which gives that to whoever wants more: tests too may be run nicely


@pytest.mark.parametrize("niceness", [0, 10])
def test_the_lane_gives_way_and_starves_not(niceness):
    def found():
        os.nice(niceness)  # of a service that is started so, which the lane must not undo
        return niceness_here(), Generations(1).run(niceness_here), niceness_here()

    with ThreadPoolExecutor(1) as own_thread:
        own, of_the_lane, afterwards = own_thread.submit(found).result()
    assert (of_the_lane, afterwards) == (min(own + 5, MOST_NICE), own)


def niceness_here() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


class Noted(hsm.Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None]] = []
        self.epochs: list[int] = []
        self.causes: list[str] = []

    def called(self, function: str, seconds: float, code: str | None) -> None:
        assert 0 <= seconds < 60
        self.calls.append((function, code))

    def connected(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def lost(self, cause: str) -> None:
        self.causes.append(cause)


def observe() -> dict[str, Any]:
    """Tell an observer of one signature, one failure and one loss."""
    _looked_after_on_suspicion_only()
    noted = Noted()
    token, chaos, key = _started(observer=noted), _injector(), new_ref(ES256)
    booted = {function for function, _ in noted.calls}
    token.generate(key)
    noted.calls.clear()
    token.sign(key, "ES256", b"data")
    signing = [call for call in noted.calls if call[0] != "C_OpenSession"]
    secret = new_ref(AES)
    token.generate(secret)
    noted.calls.clear()
    token.encrypt(secret, "dir", "A256GCM", b"data", lambda _: b"aad")
    encrypting = list(noted.calls)
    token.destroy(secret)
    chaos.fail("C_SignInit", injector.SESSION_HANDLE_INVALID, times=1)
    noted.calls.clear()
    token.sign(key, "ES256", b"data")
    failing = [call for call in noted.calls if call[0] == "C_Sign"]
    chaos.fail_all(injector.DEVICE_ERROR)
    _outcome(lambda: token.sign(key, "ES256", b"data"))
    until(lambda: noted.causes)
    chaos.heal()
    until(lambda: len(noted.epochs) == 2)
    until(lambda: token.reason is None)
    token.destroy(key)
    return {
        "booted": sorted(booted & {"C_Login", "C_OpenSession", "C_FindObjects", "C_GenerateKey"}),
        "signing": signing,
        "encrypting": encrypting,
        "failing": failing,
        "epochs": noted.epochs,
        "causes": noted.causes,
    }


def test_an_observer_is_told_of_calls_failures_and_epochs(tmp_path):
    from scripts.throwaway import make_token  # noqa: PLC0415  # drivers do without

    assert result_of(make_token(tmp_path / "state"), observe) == {
        "booted": ["C_FindObjects", "C_GenerateKey", "C_Login", "C_OpenSession"],
        "signing": [["C_Sign", None]],
        "encrypting": [["C_GenerateRandom", None], ["C_Encrypt", None], ["C_Decrypt", None]],
        "failing": [["C_Sign", "SessionHandleInvalid"], ["C_Sign", None]],
        "epochs": [1, 2],
        "causes": ["lost"],
    }
