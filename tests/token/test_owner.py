"""What registry a token belongs to is an object on it, however many write it at once."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pkcs11 import Attribute, ObjectClass

from hsm import Hsm
from hsm.life.work import Errand

FIRST, SECOND = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def written(token: Hsm) -> list[str]:
    """Return what the objects say."""

    def read(_token: Any, session: Any) -> list[str]:
        template = {Attribute.CLASS: ObjectClass.DATA, Attribute.LABEL: "jose-hsm:registry"}
        found = {one.handle: one for one in session.find(template)}  # SoftHSM may find one twice
        return [bytes(one[Attribute.VALUE]).decode() for one in found.values()]

    return token._connection.perform(Errand(verb=read))


@pytest.fixture
def own(token: Hsm) -> Any:
    """The token of the session, which belongs to its registry again afterwards."""
    before = token.registry
    yield token
    token.assign_to(before)


def test_the_last_who_writes_it_down_is_believed(own):
    assert own.assign_to(FIRST)
    assert (own.registry, set(written(own))) == (FIRST, {FIRST})
    assert own.assign_to(SECOND)
    assert (own.registry, set(written(own))) == (SECOND, {SECOND})


def test_writing_it_down_again_changes_nothing(own):
    assert own.assign_to(FIRST)
    before = written(own)
    assert own.assign_to(FIRST)
    assert written(own) == before


def test_who_write_the_same_at_once_all_succeed_and_it_stays(own):
    own.assign_to(SECOND)
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda _: own.assign_to(SECOND), range(20)))
    assert set(written(own)) == {SECOND}
