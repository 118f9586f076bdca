"""Thousands of wrapped keys that are none: one answer, after the same time, and nothing left."""

import itertools
import random
import time
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from scripts.trials.padding_oracle import THRESHOLD, sample_medians, welch_t
from tests.http.test_wrapped_imports import REFUSED, body_of, der, kids, public_of, wrapped_for
from tests.shared.api import Api

pytestmark = pytest.mark.usefixtures("softhsm")

MODULUS_BYTES = 384
SEED = 16


class Corruption:
    """Wrapped keys that differ from a good one in one bit, of either half."""

    def __init__(self, wrapping: Mapping[str, Any]) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self._good = wrapped_for(wrapping, der(key))
        self._wrapping = wrapping
        self._public = public_of(key) | {"alg": "ES256"}
        self._random = random.Random(SEED)

    def bad_padding(self) -> dict[str, Any]:
        """Return the body of an import whose AES key is none; its value is below the modulus."""
        return self._changed(self._random.randrange(1, MODULUS_BYTES))

    def bad_key(self) -> dict[str, Any]:
        """Return the body of one whose key is not what the AES key has wrapped."""
        return self._changed(self._random.randrange(MODULUS_BYTES, len(self._good)))

    def _changed(self, index: int) -> dict[str, Any]:
        octets = bytearray(self._good)
        octets[index] ^= 1 << self._random.randrange(8)
        return body_of(self._wrapping, bytes(octets), **self._public)


@pytest.mark.parametrize("number", [20, pytest.param(5_000, marks=pytest.mark.long)])
def test_corrupted_keys_get_one_answer_after_one_time_and_leave_nothing(
    number, environment, serve, application
):
    with serve(environment, workers=1) as url:
        api = Api.over_http(url)
        corruption = Corruption(api.ok("/wrapping-keys", {}))
        before = kids(application)
        kinds = {"padding": corruption.bad_padding, "key": corruption.bad_key}
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        answers = set()
        orders = itertools.cycle([("padding", "key"), ("key", "padding")])
        for kind in itertools.chain.from_iterable(itertools.islice(orders, number // 2)):
            body = kinds[kind]()
            started = time.perf_counter()
            answer = api.post("/keys", body)
            seconds[kind].append(time.perf_counter() - started)
            answers.add((answer.status, answer.content))
        assert [status for status, _ in answers] == [422]
        assert answer.body == REFUSED
        assert [found <= known for found, known in zip(kids(application), before, strict=True)] == [
            True,
            True,
        ]
    medians = [sample_medians(times) for times in seconds.values()]
    if min(map(len, medians)) > 1:
        assert abs(welch_t(*medians)) < THRESHOLD
