"""Services for one test each, and one for all that leave it as it was."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.faults.service import Service, serving, sound


@pytest.fixture
def serve_faulty(tmp_path: Path) -> Callable[..., AbstractContextManager[Service]]:
    """Serve with a token and faults of one's own: ``with serve_faulty(workers=2) as service``."""
    numbers = count()
    return lambda **changes: serving(tmp_path / str(next(numbers)), **changes)


@pytest.fixture(scope="package")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("faulty")) as service:
        yield service


@pytest.fixture
def service(_shared: Service) -> Iterator[Service]:
    """A service with one worker, ready; what is injected ends with the test."""
    with sound(_shared):
        yield _shared


@pytest.fixture
def pair(serve_faulty: Any) -> Iterator[Service]:
    """A service of one's own with two workers, ready."""
    with ExitStack() as stack:
        service = stack.enter_context(serve_faulty(workers=2))
        yield stack.enter_context(sound(service))
