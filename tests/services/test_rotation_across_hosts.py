"""Two services on one registry, signers by name and a verifier that obeys the JWKS: a short time.

How long it takes does not matter to the claims: what a verifier keeps it keeps from when it asked.
"""

import json
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import KeySet

from scripts.throwaway import make_token
from tests.shared.api import Api
from tests.shared.postgresql import Cluster
from tests.shared.waiting import Promise, until

MAX_AGE_SECONDS = 1
ROTATION = {"every": "PT3S", "publish_ahead": "PT1S", "retain": "PT1H"}
ROTATIONS = 2
ROTATED = Promise("key sets have rotated as often as they were to", 30)


class Verifier:
    """Keeps the JWKS for as long as it may, and never asks for an unknown kid."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._keys: Any = None
        self._until = 0.0

    def verify(self, compact: str) -> None:
        """Raise unless the signature is valid."""
        if time.monotonic() >= self._until:
            asked_at = time.monotonic()
            answer = self._api.get("/.well-known/jwks.json")
            assert answer.headers["Cache-Control"] == f"public, max-age={MAX_AGE_SECONDS}"
            self._keys = KeySet.import_key_set(answer.body)
            self._until = asked_at + MAX_AGE_SECONDS
        jws.deserialize_compact(compact, self._keys, algorithms=["ES256"])


@pytest.fixture
def hosts(
    serve: Any, postgresql: Cluster, tmp_path: Path
) -> Iterator[tuple[list[Api], list[Path]]]:
    """Two services with state directories of their own, one registry and one token."""
    settings = make_token(tmp_path / "a") | {
        "JOSE_HSM_DATABASE_URL": postgresql.registry(),
        "JOSE_HSM_JWKS_MAX_AGE": str(MAX_AGE_SECONDS),
    }
    (tmp_path / "b").mkdir(mode=0o700)
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    first = settings | {"JOSE_HSM_AUDIT_LOG": str(logs[0])}
    other = settings | {
        "JOSE_HSM_STATE_DIR": str(tmp_path / "b"),
        "JOSE_HSM_AUDIT_LOG": str(logs[1]),
    }
    with serve(first, workers=2) as one, serve(other, workers=1) as two:
        yield [Api.over_http(one), Api.over_http(two)], logs


def steps(logs: list[Path]) -> list[Mapping[str, Any]]:
    """Return what the audit logs say of key sets, in the order of the steps."""
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return sorted((line for line in lines if "step" in line), key=lambda line: line["step"])


def whole(logs: list[Path], name: str) -> list[Mapping[str, Any]]:
    """Return the lines of a set, if none is missing: one log is read after the other."""
    told = [line for line in steps(logs) if line["keyset"] == name]
    numbers = [line["step"] for line in told]
    assert len(set(numbers)) == len(numbers), told
    return told if numbers == list(range(1, len(told) + 1)) else []


def test_no_verifier_notices_and_each_step_is_made_once(hosts):
    apis, logs = hosts
    body = {"kty": "EC", "crv": "P-256", "alg": "ES256", "rotation": ROTATION}
    made = apis[0].request("PUT", "/keysets/orders", json=body)
    assert made.status == 200
    sealing = {"kty": "oct", "alg": "A256GCM", "rotation": ROTATION}
    assert apis[0].request("PUT", "/keysets/sealed", json=sealing).status == 200
    seal = {"keyset": "sealed", "alg": "dir", "enc": "A256GCM", "data": "AAAA"}
    first = apis[0].ok("/encrypt", seal)
    sign = {"keyset": "orders", "alg": "ES256", "data": "AAAA", "serialization": "compact"}
    verifiers = [Verifier(api) for api in apis]

    def has_rotated() -> bool:
        """Sign and verify by both, and tell whether there have been enough rotations."""
        for signer in apis:
            signed = signer.ok("/sign", sign)["jws"]
            for verifier in verifiers:
                verifier.verify(signed)
        told = [line["keyset"] for line in steps(logs) if line["transition"] == "rotated"]
        return min(told.count("orders"), told.count("sealed")) >= ROTATIONS

    until(has_rotated, within=ROTATED, pause_seconds=0.1)  # ten times before each next step
    for name in ("orders", "sealed"):
        told = until(partial(whole, logs, name))
        transitions = [line["transition"] for line in told]
        assert transitions == (["published", "rotated"] * len(told))[: len(told)]
    assert apis[1].ok("/decrypt", first)["data"] == "AAAA"
