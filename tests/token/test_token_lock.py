"""A token that goes wrong under several callers has one at a time, on the whole host."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hsm import TokenUnavailable, file_lock
from hsm.cryptoki.module import Product
from hsm.tokens.token_lock import TokenLock
from scripts.throwaway import make_token
from tests.shared.drivers import result_of
from tests.shared.refs import new_ref
from tests.shared.waiting import PATIENCE_SECONDS, until
from tests.token.test_connection import ES256, _injector, _outcome, _started

pytestmark = pytest.mark.usefixtures("softhsm")

CALLERS = 4
CALL_SECONDS = 0.02


def use_from_many_threads() -> int:
    """Make, use and destroy keys in several threads; count who is in a call at a time."""
    chaos, token = _injector(), _started(session_wait_seconds=PATIENCE_SECONDS)
    inside, most = threading.Semaphore(CALLERS), []

    def called(original: Callable[..., int], *words: int) -> int:
        with inside:
            most.append(CALLERS - inside._value)
            time.sleep(CALL_SECONDS)
            return int(original(*words))

    for name in ("C_GenerateKeyPair", "C_Sign", "C_FindObjectsInit", "C_DestroyObject"):
        chaos.replace(name, called)

    def live(_: int) -> None:
        key = new_ref(ES256)
        token.generate(key)
        token.sign(key, "ES256", b"data")
        token.destroy(key)

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(live, range(2 * CALLERS)))
    return max(most)


def use_what_another_process_uses() -> list[str]:
    """Make a key while somebody else holds the lock, and again when he does not any more."""
    token, key = _started(session_wait_seconds=0.1), new_ref(ES256)
    with file_lock(Path(os.environ["JOSE_HSM_STATE_DIR"]) / "token.lock"):
        locked = _outcome(lambda: token.generate(key))
    return [locked, _outcome(lambda: token.generate(key))]


def look_without_a_lock() -> bool:
    """Look at the token while there can be no file for its lock; wait until it is looked at again.

    So it is for who has no file descriptor left.
    """
    token = _started()
    connection, lock = token._connection, Path(os.environ["JOSE_HSM_STATE_DIR"]) / "token.lock"
    lock.unlink()
    lock.mkdir()
    for _ in range(2):  # that the second is heard of shows that the first was survived
        connection.suspect()
        until(lambda: not connection._suspicion.is_set())
    lock.rmdir()
    return token.reason is None


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """Those of a token of openCryptoki: SoftHSM under its name, with its own version, 2.6."""
    settings = make_token(tmp_path / "state")
    module = tmp_path / "libopencryptoki.so.0"
    module.symlink_to(settings["JOSE_HSM_PKCS11_MODULE"])
    return settings | {"JOSE_HSM_PKCS11_MODULE": str(module)}


def test_its_threads_use_it_one_at_a_time(settings):
    assert result_of(settings, use_from_many_threads) == 1


def test_who_waits_too_long_for_another_process_is_told_so(settings):
    assert result_of(settings, use_what_another_process_uses) == ["TokenUnavailable", "done"]


def test_whoever_looks_after_the_token_outlives_that_it_cannot_be_locked(settings):
    assert result_of(settings, look_without_a_lock)


@pytest.mark.parametrize(
    ("library", "version", "is_needed"),
    [
        ("libopencryptoki.so.0", "3.8", True),
        ("libopencryptoki.so.0", "3.13", True),
        ("libopencryptoki.so.0", "3.14", False),
        ("libopencryptoki.so.0", "4.0", False),
        ("libopencryptoki.so.0", "unknown", True),
        ("libsoftokn3.so", "3.87", True),
        ("libsofthsm2.so", "2.6", False),
    ],
)
def test_only_the_versions_that_need_it_are_locked(library, version, is_needed, tmp_path):
    first, second = (TokenLock(Path(library), tmp_path / "lock") for _ in range(2))
    for lock in (first, second):
        lock.learn(Product("IBM", version, *[""] * 4))
    with first.held():
        if is_needed:
            with pytest.raises(TokenUnavailable), second.held(0):
                raise AssertionError
        else:
            with second.held(0):
                pass
