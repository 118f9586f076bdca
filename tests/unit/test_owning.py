"""No registry is believed but the one that the token belongs to."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier
from typing import cast
from uuid import UUID, uuid4

import pytest

from app.errors import RegistryCause, RegistryUnavailable
from app.keys.owning import TokenOwner
from app.registry import Registry, migrate
from hsm import Hsm, Phase, State, TokenUnavailable
from tests.shared.waiting import PATIENCE_SECONDS
from tests.unit.test_registry import PAIR


@dataclass
class Token:
    """What is asked of a token; ``owner`` is ``None`` while it is not open."""

    owner: str | None = ""
    keys: dict[UUID, object] = field(default_factory=dict)
    permits: bool = True
    asked: int = 0
    state: State = field(default_factory=lambda: State(Phase.READY, epoch=1))

    @property
    def registry(self) -> str:
        self.asked += 1
        if self.owner is None:
            raise TokenUnavailable("the token is being opened")
        return self.owner

    def inventory(self) -> dict[UUID, object]:
        return self.keys

    def assign_to(self, registry: str) -> bool:
        if self.permits:
            self.owner = registry
        return self.permits


def owner_of(registry: Registry, token: Token) -> TokenOwner:
    return TokenOwner(registry, cast("Hsm", token))


@pytest.fixture
def make(registry_url, tmp_path) -> Iterator[Callable[[Token], Registry]]:
    made = []

    def make_with(token: Token, url: str = registry_url) -> Registry:
        registry = Registry(url, host="host")
        registry.guard(owner_of(registry, token).require)
        made.append(registry)
        return registry

    yield make_with
    for registry in made:
        registry._database.engine.dispose()


def cause_of(registry: Registry) -> RegistryCause | None:
    for act in (
        lambda: registry.find(PAIR.kid),
        lambda: registry.find_for("token:a", "mac", str(PAIR.kid)),
        lambda: registry.mark_destroyed(PAIR.kid),
        lambda: registry.credentials.find("0000"),
        registry.specs,
    ):
        try:
            act()
        except RegistryUnavailable as error:
            return error.cause
    return None


def test_a_token_without_keys_belongs_to_the_first_registry(make):
    token = Token()
    registry = make(token)
    assert cause_of(registry) is None
    assert token.owner == registry.identity()
    assert cause_of(make(token)) is None  # the same one, in another process


def test_threads_that_begin_together_write_it_down_once(make):
    begun, written = Barrier(2), []

    @dataclass
    class Seen(Token):
        @property
        def registry(self) -> str:
            begun.wait(PATIENCE_SECONDS)
            return ""

        def assign_to(self, registry: str) -> bool:
            written.append(registry)
            return True

    registry = make(Token())
    owner = owner_of(registry, Seen())
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(owner.require, ("here", "here")))
    assert written == [registry.identity()]


def test_another_registry_is_refused_whatever_it_is_asked(make):
    registry = make(Token(owner=str(uuid4())))
    with pytest.raises(RegistryUnavailable) as caught:
        registry.insert(PAIR)
    assert caught.value.cause == RegistryCause.ANOTHER
    assert cause_of(registry) == RegistryCause.ANOTHER


def test_a_registry_that_never_had_a_key_is_not_that_of_a_token_with_keys(make):
    token = Token(keys={uuid4(): None})
    assert cause_of(make(token)) == RegistryCause.ANOTHER
    assert token.owner == ""


def test_the_first_key_may_be_made_while_a_second_worker_starts(make, registry_url):
    other = Registry(registry_url, host="host")

    @dataclass
    class Busy(Token):
        def inventory(self) -> dict[UUID, object]:
            other.insert(PAIR)
            return {PAIR.kid: None}

    assert cause_of(make(Busy())) is None
    other._database.engine.dispose()


def test_a_registry_with_keys_is_that_of_a_token_that_was_never_asked(make, registry_url):
    before = Registry(registry_url, host="host")
    before.insert(PAIR)
    before._database.engine.dispose()
    token = Token(keys={PAIR.kid: None})
    registry = make(token)
    assert cause_of(registry) is None
    assert token.owner == registry.identity()


def test_nothing_is_said_before_the_token_has_said_whose_it_is(make):
    token = Token(owner=None)
    registry = make(token)
    assert cause_of(registry) == RegistryCause.UNCONFIRMED
    token.owner = ""
    assert cause_of(registry) is None


def test_the_token_is_asked_once_in_each_epoch(make):
    token = Token()
    registry = make(token)
    assert cause_of(registry) is None
    assert token.asked == 1
    token.state = State(Phase.UNAVAILABLE, epoch=1)
    assert cause_of(registry) is None  # it is known whose the registry is
    assert token.asked == 1
    token.state, token.owner = State(Phase.READY, epoch=2), str(uuid4())
    assert cause_of(registry) == RegistryCause.ANOTHER


def test_another_token_that_is_opened_while_one_is_asked_is_asked_too(make):
    @dataclass
    class Swapped(Token):
        @property
        def registry(self) -> str:
            found = super().registry
            self.state, self.owner = State(Phase.READY, epoch=self.asked + 1), str(uuid4())
            return found

    assert cause_of(make(Swapped())) == RegistryCause.ANOTHER


def test_a_token_that_keeps_no_such_object_is_believed(make):
    token = Token(permits=False)
    assert cause_of(make(token)) is None
    assert token.owner == ""


def test_another_file_in_the_place_of_the_registry_is_refused(make, tmp_path):
    url = f"sqlite:///{tmp_path / 'here.db'}"
    migrate(url)
    registry = make(Token(), url)
    assert cause_of(registry) is None
    other = tmp_path / "other.db"
    migrate(f"sqlite:///{other}")
    for path in tmp_path.glob("here.db*"):
        path.unlink()
    for path in tmp_path.glob("other.db*"):
        path.rename(Path(str(path).replace("other.db", "here.db")))
    assert cause_of(registry) == RegistryCause.ANOTHER


def test_another_database_behind_the_same_url_is_noticed_by_the_watch(postgresql):
    url = postgresql.registry()
    registry, token = Registry(url, host="host"), Token()
    owner = owner_of(registry, token)
    registry.guard(owner.require)
    owner.check()
    with registry._database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE identity SET id = '{uuid4()}'")
    with pytest.raises(RegistryUnavailable) as caught:
        owner.check()
    assert caught.value.cause == RegistryCause.ANOTHER
    assert cause_of(registry) == RegistryCause.ANOTHER
    registry._database.engine.dispose()
