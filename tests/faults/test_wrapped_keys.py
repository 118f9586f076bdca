"""Keys that the registry keeps: the faults that those of the token have stood."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from scripts.throwaway import make_token
from tests.faults.service import Service
from tests.faults.test_outage import stay_themselves
from tests.faults.test_races import destroy_twice
from tests.shared.command import with_kek
from tests.shared.examples import rounds

Serve = Callable[..., AbstractContextManager[Service]]


@pytest.fixture
def serve(serve_faulty: Any, tmp_path: Path) -> Serve:
    """Serve where the registry keeps all keys."""
    settings = with_kek(make_token(tmp_path / "state"))
    return partial(serve_faulty, settings=settings, JOSE_HSM_STORAGE="wrapped")


def test_a_key_is_itself_in_every_epoch(serve):
    with serve() as service:
        stay_themselves(service)


def test_of_two_who_destroy_a_key_one_finds_it(serve):
    with serve(workers=2) as service:
        service.wait_until_ready()
        destroy_twice(service, times=rounds(20, short=8))
        service.assert_sound()
