"""What is remembered is bounded, and what was used last stays."""

from uuid import uuid4

from hsm.cryptoki.handles import Handle, HandleCache
from hsm.cryptoki.objects import PRIVATE, PUBLIC


def test_the_handle_that_was_not_used_for_longest_is_forgotten_first():
    first, second, third = uuid4(), uuid4(), uuid4()
    cache = HandleCache(size=2)
    for value, kid in enumerate((first, second)):
        cache.put(kid, PRIVATE, Handle(value))
    assert cache.get(first, PRIVATE) == Handle(0)
    cache.put(third, PRIVATE, Handle(2))
    assert cache.get(second, PRIVATE) is None
    assert cache.get(first, PRIVATE) == Handle(0)
    cache.drop(first, [PRIVATE, PUBLIC])
    assert cache.get(first, PRIVATE) is None
    assert cache.get(third, PRIVATE) == Handle(2)
