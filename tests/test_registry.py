"""The row that every request reads."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.errors import RegistryUnavailable
from app.registry import Key, Origin, Registry, Residency, State, migrate
from hsm import KeySpec

PUBLIC_JWK = {"kty": "OKP", "crv": "Ed25519", "x": "AA"}
PAIR = Key(
    kid=uuid4(),
    kid_public=uuid4(),
    owner="owner",
    spec=KeySpec(kty="OKP", alg="EdDSA", crv="Ed25519"),
    origin=Origin.GENERATED,
    residency=Residency.TOKEN,
    state=State.ACTIVE,
    public_jwk=PUBLIC_JWK,
)
SECRET = Key(
    kid=uuid4(),
    kid_public=None,
    owner="owner",
    spec=KeySpec(kty="oct", alg="A256GCM", bits=256),
    origin=Origin.UNWRAPPED,
    residency=Residency.PROCESS,
    state=State.COMPROMISED,
)


@pytest.fixture
def registry(tmp_path) -> Iterator[Registry]:
    url = f"sqlite:///{tmp_path}/registry.db"
    migrate(url)
    registry = Registry(url, host="host")
    yield registry
    registry._database.engine.dispose()


@pytest.mark.parametrize("key", [PAIR, SECRET], ids=["pair", "secret"])
def test_a_key_is_found_as_it_was_inserted(registry, key):
    registry.insert(key)
    assert registry.find(key.kid) == key


def test_a_pair_is_found_by_its_public_kid(registry):
    registry.insert(PAIR)
    assert registry.find(PAIR.kid_public) == PAIR


def test_a_kid_without_a_row_is_not_found(registry):
    registry.insert(PAIR)
    assert registry.find(uuid4()) is None


def test_a_registry_that_cannot_be_opened_is_unavailable(tmp_path):
    registry = Registry(f"sqlite:///{tmp_path}/absent/registry.db", host="host")
    with pytest.raises(RegistryUnavailable):
        registry.find(uuid4())


def test_a_registry_without_its_table_is_unavailable_and_recovers(tmp_path):
    url = f"sqlite:///{tmp_path}/registry.db"
    registry = Registry(url, host="host")
    with pytest.raises(RegistryUnavailable):
        registry.find(uuid4())
    migrate(url)
    assert registry.find(uuid4()) is None
    registry._database.engine.dispose()


def test_no_read_stays_open_behind_a_lookup(registry):
    registry.insert(PAIR)
    registry.find(PAIR.kid)
    with registry._database.engine.connect() as connection:
        is_busy, _, _ = connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)")).one()
    assert not is_busy
