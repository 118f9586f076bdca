"""What ``hsm`` does when the token misbehaves: nothing wrong, not for long, and never twice a PIN.

A process has one state of the PKCS#11 library. So what starts it anew runs in a process of its own:
the functions under "Drivers" do.
"""

import ctypes
import json
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from pkcs11 import Attribute, Mechanism, ObjectClass

import hsm
from hsm import Hsm, KeyRef, KeySpec, Settings
from hsm.cryptoki.pin_latch import PinLatch
from hsm.cryptoki.pool import Lane
from hsm.life import connection, proof_cache
from hsm.life.work import Errand
from hsm.messages import Storage
from hsm.storage.token_store import TokenStore
from tests.shared import injector
from tests.shared.bodies import ML_DSA
from tests.shared.drivers import beside, end_of, result_of
from tests.shared.injector import Injector
from tests.shared.refs import new_ref
from tests.shared.waiting import CHANGE, PATIENCE_SECONDS, RECOVERY, until

ROOT = Path(__file__).parents[2]
AES = KeySpec(kty="oct", alg="A256GCM", bits=256)
ES256 = KeySpec(kty="EC", alg="ES256", crv="P-256")


# -- Drivers: run in a process of their own, return what JSON can say --------------------------


def _settings(**changes: Any) -> Settings:
    def read_pin() -> str:
        return Path(os.environ["JOSE_HSM_PIN_FILE"]).read_text("utf-8").strip()

    return Settings(
        **{
            "module": Path(os.environ["JOSE_HSM_PKCS11_MODULE"]),
            "token_label": os.environ["JOSE_HSM_TOKEN_LABEL"],
            "token_serial": None,
            "read_pin": read_pin,
            "state_dir": Path(os.environ["JOSE_HSM_STATE_DIR"]),
            **changes,
        }
    )


def _started(**changes: Any) -> Hsm:
    token = Hsm(_settings(**changes))
    token.start()
    until(lambda: token.reason is None)
    return token


def _looked_after_on_suspicion_only() -> None:
    """Have the canary not come by now and then: it would be in the way of what is counted."""
    connection._CANARY_SECONDS = 2 * PATIENCE_SECONDS  # type: ignore[misc]  # of this process


def _injector() -> Injector:
    return Injector(os.environ["JOSE_HSM_PKCS11_MODULE"])


def _outcome(operation: Callable[[], object]) -> str:
    """The name of the error that ``operation`` raises, or ``done``."""
    try:
        operation()
    except hsm.HsmError as error:
        return type(error).__name__
    return "done"


def try_wrong_pin(is_disk_full: bool = False) -> dict[str, int]:
    """Try to connect, and say what came of that; go on until it works; count the logins."""
    chaos = _injector()
    chaos.count("C_Login")
    reads: list[None] = []
    settings = _settings()

    def read_pin() -> str:
        reads.append(None)
        return settings.read_pin()

    token = Hsm(_settings(read_pin=read_pin))
    if is_disk_full:
        token._connection._latch._path = Path("/proc/pin.latch")  # no file can be made there
    token.start()
    until(lambda: len(reads) >= 4)
    print(json.dumps({"reason": token.reason, "logins": chaos.calls["C_Login"]}), flush=True)
    until(lambda: token.reason is None)
    return {"logins": chaos.calls["C_Login"]}


def lose_the_device() -> dict[str, Any]:
    """Have every call answer CKR_DEVICE_ERROR for a while."""
    chaos, token = _injector(), _started()
    key, other = new_ref(ES256), new_ref(ES256)
    token.generate(other)  # so that numeric handles differ in the next epoch
    public = token.generate(key).public
    token.destroy(other)
    epoch = token._connection.token
    chaos.fail_all(injector.DEVICE_ERROR)
    lost = [_outcome(lambda: token.sign(key, "ES256", b"data"))]
    until(lambda: token.reason is not None)
    lost += [_outcome(lambda: token.sign(key, "ES256", b"data")) for _ in range(3)]
    chaos.heal()
    until(lambda: token.reason is None)
    signature = token.sign(key, "ES256", b"data")
    result = {
        "lost": lost,
        "new epoch": token._connection.token is not epoch,
        "verifies": token.verify(key, "ES256", b"data", signature),
        "same key": _verifies(public, signature),
    }
    token.destroy(key)
    return result


def lose_the_kek() -> list[str]:
    """Destroy the key-encryption key, as a token does that closes the anchor; use it, wait, use."""
    _looked_after_on_suspicion_only()
    token, key = _started(), new_ref(KeySpec(kty="RSA", alg="RSA-OAEP", bits=2048))
    token.generate(key)
    encrypted_key, sealed, _ = token.encrypt(key, "RSA-OAEP", "A256GCM", b"", lambda _: b"aad")

    def destroy(_: Any, session: Any) -> None:
        (kek,) = session.find({Attribute.TOKEN: False, Attribute.WRAP: True})
        kek.destroy()

    def decrypt() -> str:
        return _outcome(
            lambda: token.decrypt(key, "RSA-OAEP", "A256GCM", encrypted_key, sealed, b"aad")
        )

    token._connection.perform(Errand(verb=destroy))
    first = decrypt()
    until(lambda: decrypt() == "done", within=RECOVERY)
    last = decrypt()
    token.destroy(key)
    return [first, last]


def _verifies(public: Any, signature: bytes) -> bool:
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    der = utils.encode_dss_signature(r, s)
    public.verify(der, b"data", ec.ECDSA(hashes.SHA256()))
    return True


def find_nothing() -> dict[str, Any]:
    """Have every search end empty for a while: with keys looked for, and with keys in use."""
    chaos, token = _injector(), _started()
    key, unknown = new_ref(AES), new_ref(AES)
    token.generate(key)
    before = _canaries(token)
    store = token._connection.token.stores[Storage.TOKEN]
    assert isinstance(store, TokenStore)
    store.forget(key.kid)
    chaos.find_nothing()

    def use(wanted: KeyRef) -> str:
        return _outcome(lambda: token.encrypt(wanted, "dir", "A256GCM", b"", lambda _: b"aad"))

    outcomes = {use(wanted) for _ in range(3) for wanted in (key, unknown)}
    until(lambda: chaos.calls["C_FindObjects"] >= 12)
    time.sleep(1)  # some epochs
    chaos.heal()

    until(lambda: use(key) == "done")
    result = {
        "outcomes": sorted(outcomes),
        "unknown afterwards": use(unknown),
        "canaries": [before, _canaries(token)],
    }
    token.destroy(key)
    return result


def _canaries(token: Hsm) -> int:
    search = Errand(verb=lambda lent, session: len(lent.canary._search(session)))
    return int(token._connection.perform(search))


def start_in_turn(shared_dir: str) -> dict[str, Any]:
    """Start as one of several processes; count what is tried then."""
    return _start_in_turn(_injector(), shared_dir)[1]


def _start_in_turn(chaos: Injector, shared_dir: str) -> tuple[Hsm, dict[str, Any]]:
    chaos.count("C_Sign")
    token = _started(shared_dir=Path(shared_dir))
    offers = {name: repr(offer) for name, offer in token.offers().items()}
    return token, {"offers": offers, "at start": chaos.calls["C_Sign"]}


def lose_in_turn(shared_dir: str) -> dict[str, Any]:
    """Do so; count also what is tried after the token was lost."""
    chaos = _injector()
    token, found = _start_in_turn(chaos, shared_dir)
    chaos.fail("C_Encrypt", injector.DEVICE_ERROR)  # the canary's
    token._connection.suspect()
    until(lambda: token.reason is not None)
    chaos.calls.clear()
    chaos.count("C_Encrypt")  # that heals it, and what is signed is counted all the while
    until(lambda: token.reason is None)
    return found | {"after a loss": chaos.calls["C_Sign"]}


def wait_for_the_proofs_of_others(shared_dir: str) -> list[Any]:
    """Say by when who may wait for another process has to be back, each time."""
    watched: list[Any] = []
    token = Hsm(_settings(shared_dir=Path(shared_dir)))
    deadlines, lock = token._connection._watchdog._deadlines, vars(proof_cache)["file_lock"]

    @contextmanager
    def locking(*arguments: Any) -> Iterator[None]:
        watched.append(deadlines.get(threading.get_ident()))
        with lock(*arguments):
            yield

    vars(proof_cache)["file_lock"] = locking
    token.start()
    until(lambda: token.reason is None)
    token.imports.require(AES)
    return watched


def refuse_foreign_ivs() -> dict[str, Any]:
    """Have no AES-GCM with an IV of the caller's, as tokens in FIPS mode may; use what there is."""
    chaos = _injector()

    def refuse(original: Any, *words: int) -> int:
        mechanism = ctypes.c_ulong.from_address(words[1]).value
        is_gcm = mechanism == Mechanism.AES_GCM
        return injector.MECHANISM_PARAM_INVALID if is_gcm else int(original(*words))

    chaos.replace("C_EncryptInit", refuse)
    token, key = _started(), new_ref(KeySpec(kty="oct", alg="HS256", bits=256))
    token.generate(key)
    result = {
        "outcome": _outcome(lambda: token.mac(key, "HS256", b"data")),
        "offered": sorted({*hsm.CONTENT_ENCRYPTIONS} & {
            name for name, offer in token.offers().items() if offer.is_offered
        }),
    }  # fmt: skip
    token.destroy(key)
    return result


def refuse_every_decryption() -> dict[str, Any]:
    """Have C_Decrypt answer CKR_GENERAL_ERROR for a while, for the canary too."""
    chaos, token = _injector(), _started()
    key = new_ref(AES)
    token.generate(key)
    _, sealed, _ = token.encrypt(key, "dir", "A256GCM", b"plain", lambda _: b"aad")

    def decrypt() -> bytes:
        return token.decrypt(key, "dir", "A256GCM", b"", sealed, b"aad")

    chaos.spoil("C_Decrypt", injector.GENERAL_ERROR)
    outcome = _outcome(decrypt)
    until(lambda: token.reason is not None)
    until(lambda: chaos.calls["C_Decrypt"] >= 10 or token.reason is None)  # new epochs
    chaos.heal()
    until(lambda: _outcome(decrypt) == "done", within=RECOVERY)
    until(lambda: token.reason is None)
    offers = token.offers()
    result = {
        "outcome": outcome,
        "afterwards": _outcome(decrypt),
        "not offered": [name for name, offer in offers.items() if not offer.is_offered],
    }
    token.destroy(key)
    return result


def use_once() -> str:
    """Make a key, use it and destroy it."""
    token, key = _started(), new_ref(AES)
    token.generate(key)
    outcome = _outcome(lambda: token.encrypt(key, "dir", "A256GCM", b"", lambda _: b"aad"))
    token.destroy(key)
    return outcome


def use_after_fork() -> dict[str, str]:
    """Use in a child what its parent has opened."""
    token, key = _started(), new_ref(AES)
    token.generate(key)
    receiving, sending = os.pipe()
    with token._connection._suspicion._cond:  # type: ignore[attr-defined]  # no other thread has it
        child_pid = os.fork()
    if not child_pid:
        outcomes = [
            _outcome(lambda: token.encrypt(key, "dir", "A256GCM", b"", lambda _: b"aad")),
            _outcome(lambda: token.destroy(key)),
        ]
        os.write(sending, json.dumps(outcomes).encode())
        os._exit(0)
    os.wait()
    child = json.loads(os.read(receiving, 4096))
    parent = _outcome(lambda: token.encrypt(key, "dir", "A256GCM", b"", lambda _: b"aad"))
    token.destroy(key)
    return {"child": child, "parent": parent}


def boot_together(rounds: int, processes: int) -> int:
    """Fork processes that boot at the same moment, again and again; count who did not succeed."""
    failures = 0
    for _ in range(rounds):
        receiving, sending = os.pipe()
        children = []
        for _ in range(processes):
            if not (child := os.fork()):
                os.close(sending)
                os.read(receiving, 1)  # returns when the parent lets go of the other end
                _boot_once()
            children.append(child)
        os.close(sending)
        os.close(receiving)
        failures += sum(bool(os.waitpid(child, 0)[1]) for child in children)
    return failures


def count_canaries() -> int:
    """Count the canaries of the token."""
    return _canaries(_started())


def _boot_once() -> None:
    """Boot, and leave with 0 if it succeeds at the first try."""
    reasons = []
    token = Hsm(_settings())
    connect = token._connection._connect

    def watched() -> None:
        try:
            connect()
        except Exception as error:
            reasons.append(error)
            raise

    token._connection._connect = watched  # type: ignore[method-assign]  # to count failures
    token.start()
    until(lambda: token.reason is None or reasons)
    os._exit(len(reasons))


def exhaust_the_pool() -> dict[str, Any]:
    """Hold the only session and ask for another."""
    _looked_after_on_suspicion_only()
    token, key = _started(sessions=1, session_wait_seconds=0.2), new_ref(AES)
    token.generate(key)
    held, free = threading.Event(), threading.Event()

    def hold(*_: Any) -> None:
        held.set()
        free.wait(CHANGE.seconds)

    holder = threading.Thread(target=token._connection.perform, args=(Errand(verb=hold),))
    holder.start()
    held.wait(CHANGE.seconds)
    outcome = _outcome(lambda: token.encrypt(key, "dir", "A256GCM", b"", lambda _: b"aad"))
    is_held = holder.is_alive()
    free.set()
    holder.join()
    later = _outcome(lambda: token.encrypt(key, "dir", "A256GCM", b"", lambda _: b"aad"))
    token.destroy(key)
    return {"outcome": outcome, "held": is_held, "later": later, "reason": token.reason}


def explain(changes: Mapping[str, str]) -> str:
    """Start with wrong settings; return the reason after a few tries."""
    token = Hsm(_settings(**{name: Path(value) if name == "module" else value
                             for name, value in changes.items()}))  # fmt: skip
    return _explained(token)


def explain_pin_file(content: list[int] | None) -> list[str | None]:
    """Start with an odd PIN file, or none, then mend it; return both reasons."""
    path = Path(os.environ["JOSE_HSM_PIN_FILE"])
    right = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(bytes(content))
    token = Hsm(_settings(session_wait_seconds=0.1))
    first = _explained(token)
    path.write_bytes(right)
    until(lambda: token.reason is None, within=RECOVERY)
    return [first, token.reason]


def _explained(token: Hsm) -> str:
    token.start()
    until(lambda: token.state.phase is not hsm.Phase.STARTING)
    outcome = _outcome(token.offers)
    time.sleep(0.5)  # some more tries, after which it says the same
    return f"{outcome}: {token.reason}"


# -- Tests -------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """The environment of a token of this test's own."""
    from scripts.throwaway import make_token  # noqa: PLC0415  # drivers do without

    return make_token(tmp_path / "state")


def test_a_wrong_pin_is_tried_once_by_all_processes_and_its_correction_is_noticed(own):
    pin_file = Path(own["JOSE_HSM_PIN_FILE"])
    latch = Path(own["JOSE_HSM_STATE_DIR"]) / "pin.latch"
    right = pin_file.read_text()
    pin_file.write_text("wrong-pin-4711")
    with beside(own, try_wrong_pin) as one, beside(own, try_wrong_pin) as other:
        first = [one(), other()]
        assert sum(found["logins"] for found in first) == 1
        assert all("PIN was refused" in found["reason"] for found in first)
        assert b"4711" not in latch.read_bytes()
        assert latch.stat().st_mode & 0o777 == 0o600
        pin_file.write_text(right)
        second = [one(), other()]
        assert sum(found["logins"] for found in second) == 1 + 2
        assert not latch.exists()


def test_a_wrong_pin_is_not_tried_by_those_who_start_later(own):
    Path(own["JOSE_HSM_PIN_FILE"]).write_text("wrong-pin-4711")
    logins = []
    for _ in range(2):
        with beside(own, try_wrong_pin) as found:
            logins.append(found()["logins"])
    assert logins == [1, 0]


def test_a_wrong_pin_is_tried_once_by_a_process_that_cannot_write_it_down(own):
    Path(own["JOSE_HSM_PIN_FILE"]).write_text("wrong-pin-4711")
    with beside(own, try_wrong_pin, True) as found:
        assert found()["logins"] == 1


def test_a_token_that_makes_the_ivs_itself_does_the_rest(own):
    assert result_of(own, refuse_foreign_ivs, proves=True) == {
        "outcome": "done",
        "offered": ["A128CBC-HS256", "A192CBC-HS384", "A256CBC-HS512"],
    }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a service."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def first(environment: Any, served: Path) -> Any:
    """What came of the first process of that service."""
    return result_of(environment, start_in_turn, str(served), proves=True)


@pytest.fixture
def shared(first: Any, served: Path, tmp_path: Path) -> Path:
    """The directory as that process left it, for one test."""
    return Path(shutil.copytree(served, tmp_path / "shared"))


def test_what_one_process_has_found_the_others_of_its_service_believe_at_their_start(
    environment, first, shared
):
    second = result_of(environment, lose_in_turn, str(shared), proves=True)
    assert first["at start"] > second["at start"] == 0
    assert first["offers"] == second["offers"]
    assert second["after a loss"] == first["at start"]


def test_nobody_is_overdue_who_waits_for_what_others_find(environment, tmp_path):
    waits = result_of(environment, wait_for_the_proofs_of_others, str(tmp_path), proves=True)
    assert waits == [None, None, None]  # over templates, algorithms and imports


def test_what_was_found_long_ago_or_is_not_readable_is_found_anew(environment, first, shared):
    (found,) = shared.glob("proofs-*.json")
    os.utime(found, (0, 0))
    assert result_of(environment, start_in_turn, str(shared), proves=True) == first
    found.write_text("[")
    assert result_of(environment, start_in_turn, str(shared), proves=True) == first


@pytest.mark.promise
def test_a_key_encryption_key_that_is_lost_is_made_anew(environment):
    assert result_of(environment, lose_the_kek) == ["KeyNotFound", "done"]


def test_a_lost_device_is_found_again_with_the_same_keys_in_a_new_epoch(environment):
    assert result_of(environment, lose_the_device) == {
        "lost": ["TokenUnavailable"] * 4,
        "new epoch": True,
        "verifies": True,
        "same key": True,
    }


@pytest.fixture(scope="module")
def blinded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What came of a token that found nothing for a while."""
    from scripts.throwaway import make_token  # noqa: PLC0415  # drivers do without

    return result_of(make_token(tmp_path_factory.mktemp("blinded") / "state"), find_nothing)


def test_a_token_that_shows_nothing_never_makes_a_key_not_found(blinded):
    assert blinded["outcomes"] == ["TokenUnavailable"]
    assert blinded["unknown afterwards"] == "KeyNotFound"


def test_a_token_that_shows_nothing_gets_no_second_canary(blinded):
    assert blinded["canaries"] == [1, 1]


@pytest.fixture(scope="module")
def confused(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What came of a token that answered CKR_GENERAL_ERROR to every decryption for a while."""
    from scripts.throwaway import make_token  # noqa: PLC0415  # drivers do without

    state = tmp_path_factory.mktemp("confused") / "state"
    return result_of(make_token(state), refuse_every_decryption, proves=True)


@pytest.mark.promise
def test_a_general_error_of_everything_is_not_a_failed_decryption(confused):
    assert confused["outcome"] == "TokenUnavailable"


def test_a_token_in_trouble_is_not_believed_to_lack_algorithms(confused):
    assert confused["afterwards"] == "done"
    assert confused["not offered"] == sorted([*ML_DSA, "RSA1_5"])


def test_what_was_opened_before_a_fork_is_refused_after_it(environment):
    found = result_of(environment, use_after_fork)
    assert found == {"child": ["TokenUnavailable"] * 2, "parent": "done"}


@pytest.mark.parametrize(
    ("rounds", "processes"), [(1, 3), pytest.param(10, 4, marks=pytest.mark.long)]
)
def test_processes_that_boot_at_once_all_succeed_and_make_one_canary(own, rounds, processes):
    assert result_of(own, boot_together, rounds, processes, proves=True) == 0
    assert result_of(own, count_canaries) == 1


def test_waiting_for_a_session_is_bounded(environment):
    found = result_of(environment, exhaust_the_pool)
    assert found == {"outcome": "TokenUnavailable", "held": True, "later": "done", "reason": None}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"module": "/nonexistent/module.so"}, "the PKCS#11 module cannot be loaded"),
        ({"module": "/etc/passwd"}, "the PKCS#11 module cannot be loaded"),
        ({"token_label": "no such label"}, "no token matches"),
        ({"token_serial": "0000"}, "no token matches"),
    ],
    ids=["no-module", "no-library", "label", "serial"],
)
def test_wrong_settings_are_explained(changes, reason, environment):
    assert result_of(environment, explain, changes) == f"TokenUnavailable: {reason}"


@pytest.mark.promise
@pytest.mark.parametrize("content", [None, list(b"\xff\xfe")], ids=["missing", "not-utf-8"])
def test_an_unreadable_pin_file_is_explained_and_its_correction_noticed(content, own):
    first, last = result_of(own, explain_pin_file, content)
    assert first.startswith("TokenUnavailable: ")
    assert "being opened" not in first
    assert last is None


# -- Tests on the token of this process, which no fault here makes start anew --------------------


@pytest.fixture
def key(token: Hsm, request: pytest.FixtureRequest) -> Iterator[KeyRef]:
    """A key of the kind that the test names, or for ES256."""
    key = new_ref(getattr(request, "param", ES256))
    token.generate(key)
    yield key
    token.destroy(key)


SESSION_FAULTS = {
    "session-handle-invalid": injector.SESSION_HANDLE_INVALID,
    "operation-active": injector.OPERATION_ACTIVE,
    "user-not-logged-in": injector.USER_NOT_LOGGED_IN,
    "general-error": injector.GENERAL_ERROR,
    "session-count": injector.SESSION_COUNT,
}
session_faults = pytest.mark.parametrize("value", SESSION_FAULTS.values(), ids=SESSION_FAULTS)


@session_faults
def test_after_a_fault_of_the_session_another_one_is_tried(value, key, token, chaos):
    chaos.count("C_CloseSession")
    chaos.fail("C_SignInit", value, times=1)
    signature = token.sign(key, "ES256", b"data")
    assert chaos.calls == {"C_SignInit": 2, "C_CloseSession": 1}
    assert token.verify(key, "ES256", b"data", signature)


@session_faults
def test_it_is_tried_once_more_and_not_again(value, key, token, chaos):
    chaos.count("C_CloseSession")
    chaos.fail("C_SignInit", value)
    with pytest.raises(hsm.TokenUnavailable):
        token.sign(key, "ES256", b"data")
    assert chaos.calls == {"C_SignInit": 2, "C_CloseSession": 2}


def test_an_unwrapping_that_is_tried_twice_makes_one_key(token, chaos):
    key, new = new_ref(KeySpec(kty="RSA", alg="RSA-OAEP", bits=2048)), new_ref(AES)
    token.generate(key)
    encrypted_key, sealed, _ = token.encrypt(key, "RSA-OAEP", "A256GCM", b"plain", lambda _: b"aad")
    values = []

    def unwrap_then_fail(original: Callable[..., int], *words: int) -> int:
        values.append(original(*words))
        # The second call of each try keeps the CEK as a key; the first try loses its session then.
        return injector.SESSION_HANDLE_INVALID if len(values) == 2 else values[-1]

    chaos.replace("C_UnwrapKey", unwrap_then_fail)
    token.unwrap(key, "RSA-OAEP", "A256GCM", encrypted_key, new)
    chaos.heal()
    assert values == [injector.OK] * 4
    assert _objects(token, new.kid) == 1
    assert token.decrypt(new, "dir", "A256GCM", b"", sealed, b"aad") == b"plain"
    token.destroy(key)
    token.destroy(new)


def _objects(token: Hsm, kid: UUID) -> int:
    template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.ID: kid.bytes}
    return token._connection.perform(
        Errand(verb=lambda _, session: len({found.handle for found in session.find(template)}))
    )


def test_a_creation_that_is_tried_twice_makes_one_key(token, chaos):
    key = new_ref(ES256)
    original_calls = []

    def generate_then_fail(original: Callable[..., int], *words: int) -> int:
        value = original(*words)
        original_calls.append(value)
        return value if len(original_calls) > 1 else injector.SESSION_HANDLE_INVALID

    chaos.replace("C_GenerateKeyPair", generate_then_fail)
    token.generate(key)
    assert original_calls == [injector.OK, injector.OK]
    assert len(token.inventory()[key.kid]) == 2
    signature = token.sign(key, "ES256", b"data")
    assert token.verify(key, "ES256", b"data", signature)
    assert _count_objects(token, key.kid) == 2
    token.destroy(key)
    assert _count_objects(token, key.kid) == 0


def test_what_the_token_only_says_to_have_destroyed_is_destroyed_again_or_503(key, token, chaos):
    """So does Kryoptic if its database was busy."""
    chaos.fail_own("C_DestroyObject", injector.OK)
    with pytest.raises(hsm.TokenUnavailable):
        token.destroy(key)
    assert _count_objects(token, key.kid) == 2
    chaos.fail_own("C_DestroyObject", injector.OK, times=1)
    token.destroy(key)
    assert _count_objects(token, key.kid) == 0


def _count_objects(token: Hsm, kid: UUID) -> int:
    template = {Attribute.ID: kid.bytes}
    return token._connection.perform(
        Errand(verb=lambda _, session: len({found.handle for found in session.find(template)}))
    )


@pytest.mark.parametrize("key", [AES], indirect=True, ids=["A256GCM"])
@pytest.mark.parametrize("value", [injector.GENERAL_ERROR, injector.FUNCTION_FAILED])
def test_a_general_error_that_comes_twice_is_a_failed_decryption(value, key, token, chaos):
    _, sealed, _ = token.encrypt(key, "dir", "A256GCM", b"plain", lambda _: b"aad")
    chaos.replace_own("C_Decrypt", lambda original, *words: original(*words) and value)
    with pytest.raises(hsm.DecryptionFailed):
        token.decrypt(key, "dir", "A256GCM", b"", sealed, b"another aad")
    chaos.spoil_own("C_Decrypt", value, times=1)
    assert token.decrypt(key, "dir", "A256GCM", b"", sealed, b"aad") == b"plain"


def test_the_anchor_is_never_closed_and_nobody_logs_out(key, token, chaos):
    anchor = token._connection.token.pool.anchor
    closed: queue.SimpleQueue[int] = queue.SimpleQueue()

    def close(original: Callable[..., int], session: int, *words: int) -> int:
        closed.put(session)
        return original(session, *words)

    chaos.replace("C_CloseSession", close)
    chaos.count("C_CloseAllSessions", "C_Logout", "C_Login")
    for value in SESSION_FAULTS.values():
        chaos.fail("C_SignInit", value, times=4)
        for _ in range(2):
            with pytest.raises(hsm.TokenUnavailable):
                token.sign(key, "ES256", b"data")
    handles = {closed.get_nowait() for _ in range(closed.qsize())}
    assert handles
    assert anchor.raw.handle not in handles
    assert not {"C_CloseAllSessions", "C_Logout", "C_Login"} & chaos.calls.keys()
    assert token._connection.token.canary.is_found(anchor)


@pytest.mark.parametrize(
    "value",
    [0x07, 0x13, 0x40, 0x41, 0x62, 0xD1, 0xF1, 0x110, 0x112, injector.GENERAL_ERROR],
    ids=hex,
)
def test_whatever_the_token_says_of_an_encrypted_key_is_a_failed_decryption(token, chaos, value):
    key = new_ref(KeySpec(kty="RSA", alg="RSA-OAEP", bits=2048))
    token.generate(key)
    encrypted_key, sealed, _ = token.encrypt(key, "RSA-OAEP", "A256GCM", b"plain", lambda _: b"aad")
    chaos.fail_own("C_UnwrapKey", value)
    with pytest.raises(hsm.DecryptionFailed):
        token.decrypt(key, "RSA-OAEP", "A256GCM", encrypted_key, sealed, b"aad")
    chaos.heal()
    assert token.decrypt(key, "RSA-OAEP", "A256GCM", encrypted_key, sealed, b"aad") == b"plain"
    token.destroy(key)


@pytest.mark.parametrize(
    ("error", "is_lent_again"), [(hsm.TokenUnavailable, False), (hsm.DecryptionFailed, True)]
)
def test_a_session_is_lent_again_after_faults_of_the_caller_only(token, error, is_lent_again):
    opens = token._connection.token.pool.operations._open_session
    lane = Lane(opens, size=2, wait_seconds=PATIENCE_SECONDS, of=hsm.Observer())  # of the test
    lent = []

    def use_and_fail() -> None:
        with lane.session() as session:
            lent.append(session)
            raise error

    with pytest.raises(error):
        use_and_fail()
    for _ in range(lane.sessions.size):  # each has its turn
        with lane.session() as session:
            lent.append(session)
    assert (lent[0] in lent[1:]) is is_lent_again
    for session in {*lent[1:]}:
        session.close()


def test_a_busy_token_is_not_taken_for_a_lost_one(token, chaos):
    epoch = token._connection.token
    chaos.fail_own("C_GenerateKey", 0x31, times=1)  # CKR_DEVICE_MEMORY
    assert token._connection._is_well()
    assert token._connection.token is epoch


def test_a_refused_pin_is_remembered_for_its_token_only(tmp_path):
    latch = PinLatch(tmp_path / "pin.latch")
    latch.begin(b"serial", "4711")
    latch.close()
    assert b"4711" not in (tmp_path / "pin.latch").read_bytes()
    known = PinLatch(tmp_path / "pin.latch")
    assert known.is_closed(b"serial", "4711", was_wrong=False)
    assert not known.is_closed(b"serial", "4712", was_wrong=True)
    assert not known.is_closed(b"another", "4711", was_wrong=True)
    (tmp_path / "pin.latch").unlink()
    assert not known.is_closed(b"serial", "4711", was_wrong=True)


@pytest.mark.parametrize("was_wrong", [False, True])
def test_a_trial_that_nobody_finished_was_a_refusal_if_the_token_says_so(tmp_path, was_wrong):
    PinLatch(tmp_path / "pin.latch").begin(b"serial", "4711")
    latch = PinLatch(tmp_path / "pin.latch")
    assert latch.is_closed(b"serial", "4711", was_wrong=was_wrong) is was_wrong
    assert not latch.is_closed(b"serial", "4712", was_wrong=was_wrong)
    latch.open()
    assert not latch.is_closed(b"serial", "4711", was_wrong=was_wrong)
    assert not list(tmp_path.iterdir())


def killed_at_login() -> dict[str, int]:
    """Be killed as soon as the token has answered C_Login."""
    chaos = _injector()
    chaos.count("C_Login")
    PinLatch.close = PinLatch.open = lambda *_: os._exit(9)  # type: ignore[method-assign]  # the death
    Hsm(_settings()).start()
    time.sleep(PATIENCE_SECONDS)
    return {}


def test_a_process_that_is_killed_over_a_wrong_pin_costs_no_second_try(own):
    pin_file = Path(own["JOSE_HSM_PIN_FILE"])
    right = pin_file.read_text()
    pin_file.write_text("wrong-pin-4711")
    assert end_of(own, killed_at_login).returncode == 9
    with beside(own, try_wrong_pin) as later:
        found = later()
        assert (found["logins"], "PIN was refused" in found["reason"]) == (0, True)
        pin_file.write_text(right)
        assert later() == {"logins": 1}


def test_a_process_that_is_killed_over_the_right_pin_closes_nothing(own):
    assert end_of(own, killed_at_login).returncode == 9
    assert (Path(own["JOSE_HSM_STATE_DIR"]) / "pin.trial").exists()
    assert result_of(own, use_once) == "done"
    assert not (Path(own["JOSE_HSM_STATE_DIR"]) / "pin.trial").exists()


def test_first_aid_that_cannot_be_given_kills_nobody(own):
    (Path(own["JOSE_HSM_STATE_DIR"]) / "softhsm").write_text("in the way")
    assert result_of(own, use_once) == "done"


@pytest.mark.parametrize("value", [0xD1, 0x12, injector.GENERAL_ERROR], ids=hex)
def test_a_creation_is_tried_again_whatever_the_token_finds_fault_with(token, chaos, value):
    key = new_ref(ES256)
    chaos.fail("C_GenerateKeyPair", value, times=2)
    token.generate(key)
    assert chaos.calls["C_GenerateKeyPair"] == 3
    assert len(token.inventory()[key.kid]) == 2
    token.destroy(key)


def test_a_key_that_the_token_never_accepts_is_a_crypto_failure(token, chaos):
    key = new_ref(ES256)
    chaos.fail("C_GenerateKeyPair", 0xD1)
    with pytest.raises(hsm.CryptoFailure):
        token.generate(key)
    chaos.heal()
    assert key.kid not in token.inventory()
