"""The faults of the table in which keys have a part, once more with keys that the registry keeps.

The tests are those of the other files; what differs is the service that they get. A registry that
does not answer has no pair made elsewhere; here a key is made before its row, and has to be gone.
What is quick of this is in ``test_wrapped_keys.py``.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from scripts.throwaway import make_token
from tests.faults import test_errors
from tests.faults.service import Service, serving, use
from tests.faults.test_errors import (
    TELL_TALE,
    test_a_bad_session_is_thrown_away_and_nobody_notices,
    test_a_bad_tag_of_a_healthy_token_is_422,
    test_a_good_mac_is_not_called_bad_by_a_corrupted_result,
    test_a_good_tag_on_a_broken_token_is_503,
    test_a_pair_that_was_made_and_cannot_be_used_leaves_nothing_after_reconcile,
    test_a_request_survives_being_logged_out_once,
    test_a_result_that_is_corrupted_once_is_right_or_refused,
    test_a_slow_token_is_waited_for,
    test_a_token_that_hides_its_keys_keeps_none_that_was_destroyed,
    test_a_token_that_hides_its_keys_never_makes_a_404,
    test_a_token_without_free_sessions_is_busy_and_is_not_opened_anew,
    test_every_call_that_fails_once_is_right_or_503,
    test_more_requests_than_a_slow_token_can_serve_wait_briefly_and_get_503,
)
from tests.faults.test_outage import (
    test_a_batch_that_loses_its_token_is_right_as_far_as_it_got,
    test_a_call_that_hangs_ends_its_worker_only,
    test_a_token_that_dies_is_503_at_once_and_back_without_a_restart,
    test_a_token_that_dies_is_opened_anew_once_by_each_worker,
    test_a_token_that_dies_while_a_pair_is_made_leaves_nothing_after_reconcile,
    test_a_token_that_flaps_gives_right_results_or_503,
    test_creations_that_are_refused_leave_no_rows_behind,
)
from tests.faults.test_registry import (
    HMAC,
    LOCKS,
    locked,
    moved_away,
    only_uses,
    refuses_all,
    test_a_registry_that_is_damaged_under_the_service_is_503,
    test_without_its_registry_the_service_says_503_and_never_404,
)
from tests.shared.command import with_kek
from tests.shared.waiting import until

__all__ = [
    "test_a_bad_session_is_thrown_away_and_nobody_notices",
    "test_a_bad_tag_of_a_healthy_token_is_422",
    "test_a_batch_that_loses_its_token_is_right_as_far_as_it_got",
    "test_a_call_that_hangs_ends_its_worker_only",
    "test_a_good_mac_is_not_called_bad_by_a_corrupted_result",
    "test_a_good_tag_on_a_broken_token_is_503",
    "test_a_pair_that_was_made_and_cannot_be_used_leaves_nothing_after_reconcile",
    "test_a_registry_that_is_damaged_under_the_service_is_503",
    "test_a_request_survives_being_logged_out_once",
    "test_a_result_that_is_corrupted_once_is_right_or_refused",
    "test_a_slow_token_is_waited_for",
    "test_a_token_that_dies_is_503_at_once_and_back_without_a_restart",
    "test_a_token_that_dies_is_opened_anew_once_by_each_worker",
    "test_a_token_that_dies_while_a_pair_is_made_leaves_nothing_after_reconcile",
    "test_a_token_that_flaps_gives_right_results_or_503",
    "test_a_token_that_hides_its_keys_keeps_none_that_was_destroyed",
    "test_a_token_that_hides_its_keys_never_makes_a_404",
    "test_a_token_without_free_sessions_is_busy_and_is_not_opened_anew",
    "test_creations_that_are_refused_leave_no_rows_behind",
    "test_every_call_that_fails_once_is_right_or_503",
    "test_more_requests_than_a_slow_token_can_serve_wait_briefly_and_get_503",
    "test_without_its_registry_the_service_says_503_and_never_404",
]

pytestmark = pytest.mark.long

NOT_WRAPPED = ("EdDSA",)


def served(directory: Path, **changes: Any) -> AbstractContextManager[Service]:
    """Serve where the registry keeps all keys, with the token of ``settings`` or a new one."""
    settings = changes.pop("settings", None) or with_kek(make_token(directory / "state"))
    return serving(directory, settings=settings, JOSE_HSM_STORAGE="wrapped", **changes)


@pytest.fixture
def serve_faulty(tmp_path: Path) -> Callable[..., AbstractContextManager[Service]]:
    """Serve as the fixture of that name does in the other files."""
    numbers = count()
    return lambda **changes: served(tmp_path / str(next(numbers)), **changes)


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with served(tmp_path_factory.mktemp("wrapped")) as service:
        yield service


def test_the_registry_keeps_the_keys(service):
    kid = service.create(kty="oct", alg="HS256")["kid"]
    assert service.api.get(f"/keys/{kid}").body["storage"] == "wrapped"


@pytest.mark.parametrize(
    ("function", "alg"),
    [(name, alg) for name, algs in TELL_TALE.items() for alg in algs if alg not in NOT_WRAPPED],
)
def test_a_corrupted_result_is_never_given_out(service, function, alg):
    test_errors.test_a_corrupted_result_is_never_given_out(service, function, alg)


def test_while_the_registry_is_locked_keys_are_used_and_none_is_kept(service):
    key = service.create(**HMAC)
    with none_is_kept(service):
        for how in LOCKS:
            with locked(service, how):
                only_uses(service, key)
    assert use(service.api, service.create(**HMAC)) == 200


def test_a_registry_that_is_moved_away_under_the_service_is_503(service, tmp_path):
    key = service.create(**HMAC)
    with none_is_kept(service), moved_away(service, tmp_path / "saved"):
        refuses_all(service, key)
    assert use(service.api, key) == 200
    assert use(service.api, service.create(**HMAC)) == 200


MAKES = Counter(
    C_GenerateKeyPair=2, C_GenerateKey=1, C_CreateObject=1, C_UnwrapKey=1, C_DeriveKey=1
)


@contextmanager
def none_is_kept(service: Service) -> Iterator[None]:
    """There are no more rows after a ``with`` block, and no more objects than of a key in use.

    Which each of the two workers may have unwrapped meanwhile.
    """
    kids, before, pairs = kids_of(service), objects(service), pairs_made(service)
    yield
    assert pairs_made(service) >= pairs + 2
    until(lambda: objects(service) <= before + 2)  # a canary may be at work
    assert kids_of(service) == kids


def objects(service: Service) -> int:
    made = sum(number * service.faults.calls(name) for name, number in MAKES.items())
    return made - service.faults.calls("C_DestroyObject")


def pairs_made(service: Service) -> int:
    return service.faults.calls("C_GenerateKeyPair")


def kids_of(service: Service) -> list[str]:
    return [key["kid"] for key in service.api.get("/keys?limit=200").body["keys"]]
