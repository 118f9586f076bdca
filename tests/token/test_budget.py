"""An AES key encrypts 2^32 times and not once more, whoever counts and whoever dies."""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text

from app.host import host_name
from app.keys.budget import MOST_ENCRYPTIONS, WARNING_AT, EncryptionBudget
from app.registry import Registry
from app.registry.databases.engines import engine_of
from hsm import CryptoFailure, KeyNotFound

DIRECT = {"alg": "dir", "enc": "A128GCM", "data": ""}


@pytest.fixture
def registry(config: Any) -> Iterator[Registry]:
    registry = Registry(config.registry_url, host=host_name(config.state_dir))
    yield registry
    registry._database.engine.dispose()


@pytest.fixture
def counted(config: Any) -> Iterator[Callable[..., int]]:
    """Read, or set first, how many encryptions with a key are counted."""
    engine = engine_of(config.registry_url)

    def count(kid: str, value: int | None = None) -> int:
        with engine.begin() as connection:
            if value is not None:
                update = text("UPDATE keys SET encryptions = :value WHERE kid = :kid")
                connection.execute(update, {"value": value, "kid": kid})
            query = text("SELECT encryptions FROM keys WHERE kid = :kid")
            return int(connection.execute(query, {"kid": kid}).scalar_one())

    yield count
    engine.dispose()


@pytest.fixture
def kid(local: Any) -> str:
    return str(local.create(kty="oct", alg="A128GCM")["kid"])


def test_the_last_encryption_is_allowed_and_the_next_refused(local, kid, counted):
    counted(kid, MOST_ENCRYPTIONS - 3)
    statuses = [local.post("/encrypt", DIRECT | {"kid": kid}).status for _ in range(5)]
    assert statuses == [200, 200, 200, 422, 422]
    answer = local.post("/encrypt", DIRECT | {"kid": kid})
    assert answer.refusal == (422, "crypto_failure")
    assert "make another" in answer.body["description"]


def test_a_key_that_may_not_encrypt_any_more_still_decrypts(local, kid, counted):
    counted(kid, MOST_ENCRYPTIONS - 1)
    jwe = local.ok("/encrypt", DIRECT | {"kid": kid})
    assert local.post("/encrypt", DIRECT | {"kid": kid}).status == 422
    assert local.ok("/decrypt", jwe)["data"] == ""


def test_never_fewer_are_counted_than_were_made(registry, kid, counted):
    for process in range(1, 4):
        budget = EncryptionBudget(registry)
        for made in range(600):
            budget.spend(kid)
            assert counted(kid) >= process - 1 + made + 1
    # Blocks of 256 and 512: what each process took and did not use is counted too.
    assert counted(kid) == 3 * (256 + 512)


def test_blocks_grow_so_that_little_is_written(registry, kid, monkeypatch):
    blocks = []
    reserve = registry.reserve_encryptions

    def noted(kid: Any, count: int, *, most: int) -> tuple[int, int]:
        blocks.append(count)
        return reserve(kid, count, most=most)

    monkeypatch.setattr(registry, "reserve_encryptions", noted)
    budget = EncryptionBudget(registry)
    for _ in range(200_000):
        budget.spend(kid)
    assert blocks == [2**n for n in range(8, 17)] + [2**16, 2**16]


def test_two_processes_share_the_budget_exactly(registry, kid, counted):
    counted(kid, MOST_ENCRYPTIONS - 1000)
    made = 0
    budgets = [EncryptionBudget(registry) for _ in range(2)]
    for _ in range(1000):
        for budget in budgets:
            with suppress(CryptoFailure):
                budget.spend(kid)
                made += 1
    assert made == 1000


def test_half_way_there_is_one_warning(registry, kid, counted, caplog):
    counted(kid, WARNING_AT - 300)
    budget = EncryptionBudget(registry)
    with caplog.at_level(logging.WARNING):
        for _ in range(2000):
            budget.spend(kid)
    assert [record.getMessage() for record in caplog.records] == [
        f"key {kid} has half of its encryptions behind it: replace it"
    ]


def test_the_cek_of_a_message_has_no_budget(local, counted):
    key = local.create(kty="RSA", alg="RSA-OAEP")["kid"]
    local.ok("/encrypt", {"kid": key, "alg": "RSA-OAEP", "enc": "A128GCM", "data": ""})
    assert counted(key) == 0


def test_a_key_that_is_gone_is_not_found(local, registry, kid):
    local.delete(kid)
    with pytest.raises(KeyNotFound):
        EncryptionBudget(registry).spend(kid)
