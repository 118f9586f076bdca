"""An AES key encrypts 2^32 times and not once more, whoever counts and whoever dies."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from app.keys import budget as budget_module
from app.keys.budget import MOST_ENCRYPTIONS, WARNING_AT, EncryptionBudget
from app.registry import Key, Origin, Registry, Residency, State
from app.registry.tables import keys
from app.service import service_of
from hsm import CryptoFailure, KeyNotFound, KeySpec

DIRECT = {"alg": "dir", "enc": "A128GCM", "data": ""}


@pytest.fixture
def registry(registry_url: str) -> Iterator[Registry]:
    registry = Registry(registry_url, host="host")
    yield registry
    registry._database.engine.dispose()


@pytest.fixture
def own(application: Any) -> Registry:
    """That of the service in this process."""
    return service_of(application).registry


def counted(registry: Registry, kid: object) -> int:
    """Return how many encryptions with a key are counted."""
    query = select(keys.c.encryptions).where(keys.c.kid == str(kid))
    with registry._database.reading() as connection:
        return int(connection.execute(query).scalar_one())


def count(registry: Registry, kid: object, encryptions: int) -> None:
    """Have so many of them behind it."""
    with registry._database.writing() as connection:
        connection.execute(
            keys.update().where(keys.c.kid == str(kid)).values(encryptions=encryptions)
        )


@pytest.fixture
def row(registry: Registry) -> UUID:
    """A key of which there is no more than a row: the token counts nothing."""
    key = Key(
        kid=uuid4(),
        kid_public=None,
        owner="token:a",
        spec=KeySpec(kty="oct", alg="A128GCM", bits=128),
        origin=Origin.GENERATED,
        residency=Residency.TOKEN,
        state=State.ACTIVE,
    )
    registry.insert(key)
    return key.kid


@pytest.fixture
def kid(local: Any) -> str:
    return str(local.create(kty="oct", alg="A128GCM")["kid"])


def test_the_last_encryption_is_allowed_and_the_next_refused(local, kid, own):
    count(own, kid, MOST_ENCRYPTIONS - 3)
    statuses = [local.post("/encrypt", DIRECT | {"kid": kid}).status for _ in range(5)]
    assert statuses == [200, 200, 200, 422, 422]
    answer = local.post("/encrypt", DIRECT | {"kid": kid})
    assert answer.refusal == (422, "crypto_failure")
    assert "make another" in answer.body["description"]


def test_a_key_that_may_not_encrypt_any_more_still_decrypts(local, kid, own):
    count(own, kid, MOST_ENCRYPTIONS - 1)
    jwe = local.ok("/encrypt", DIRECT | {"kid": kid})
    assert local.post("/encrypt", DIRECT | {"kid": kid}).status == 422
    assert local.ok("/decrypt", jwe)["data"] == ""


def test_never_fewer_are_counted_than_were_made(registry, row):
    for process in range(1, 4):
        budget = EncryptionBudget(registry)
        for made in range(600):
            budget.spend(row)
            assert counted(registry, row) >= process - 1 + made + 1
    # Blocks of 256 and 512: what each process took and did not use is counted too.
    assert counted(registry, row) == 3 * (256 + 512)


def test_which_part_is_behind_a_key_is_told_when_it_is_counted(registry, row):
    parts: list[float] = []
    budget = EncryptionBudget(registry, parts.append)
    for _ in range(2**8 + 1):
        budget.spend(row)
    assert parts == [2**8 / 2**32, (2**8 + 2**9) / 2**32]


def test_blocks_grow_so_that_little_is_written(registry, row, monkeypatch):
    blocks = []
    reserve = registry.reserve_encryptions

    def noted(kid: Any, count: int, *, most: int) -> tuple[int, int]:
        blocks.append(count)
        return reserve(kid, count, most=most)

    monkeypatch.setattr(registry, "reserve_encryptions", noted)
    budget = EncryptionBudget(registry)
    for _ in range(200_000):
        budget.spend(row)
    assert blocks == [2**n for n in range(8, 17)] + [2**16, 2**16]


def test_two_processes_share_the_budget_exactly(registry, row):
    count(registry, row, MOST_ENCRYPTIONS - 1000)
    made = 0
    budgets = [EncryptionBudget(registry) for _ in range(2)]
    for _ in range(1000):
        for budget in budgets:
            with suppress(CryptoFailure):
                budget.spend(row)
                made += 1
    assert made == 1000


def test_half_way_there_is_one_warning(registry, row, caplog):
    count(registry, row, WARNING_AT - 300)
    budget = EncryptionBudget(registry)
    with caplog.at_level(logging.WARNING):
        for _ in range(2000):
            budget.spend(row)
    records = [one for one in caplog.records if one.name == budget_module.__name__]
    assert [record.getMessage() for record in records] == [
        f"key {row} has half of its encryptions behind it: replace it"
    ]


def test_a_key_that_seals_ceks_is_counted_like_one_that_seals_content(local, own):
    body = {"alg": "A192GCMKW", "enc": "A128CBC-HS256", "data": ""}
    key = local.create(kty="oct", alg="A192GCMKW")["kid"]
    local.ok("/encrypt", body | {"kid": key})
    assert counted(own, key) > 0
    spent = local.create(kty="oct", alg="A192GCMKW")["kid"]
    count(own, spent, MOST_ENCRYPTIONS)
    assert local.post("/encrypt", body | {"kid": spent}).refusal == (422, "crypto_failure")


def test_the_cek_of_a_message_has_no_budget(local, own):
    key = local.shared(kty="RSA", alg="RSA-OAEP")["kid"]
    local.ok("/encrypt", {"kid": key, "alg": "RSA-OAEP", "enc": "A128GCM", "data": ""})
    assert counted(own, key) == 0


def test_a_key_that_is_gone_is_not_found(registry, row):
    for remove in (registry.mark_destroyed, registry.remove):
        remove(row)
        with pytest.raises(KeyNotFound):
            EncryptionBudget(registry).spend(row)
