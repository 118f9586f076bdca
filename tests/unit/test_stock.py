"""What there is, when somebody looks at the figures."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from app.errors import RegistryUnavailable
from app.observability.stock import Stock
from app.registry import Registry, Watch
from tests.unit.test_tallies import AES, KEPT, new


def figures(stock: Stock) -> dict[tuple[str, ...], float]:
    """Return the value of each series, by its labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in stock.collect()
        for sample in family.samples
    }


def test_what_is_told_is_what_there_is_just_now(registry: Registry) -> None:
    watch = Watch(registry.check)
    watch._ask()
    stock = Stock(registry, watch)
    assert figures(stock) == {("key",): math.inf, ("api_token",): math.inf}
    kept = new(registry, KEPT)
    new(registry, AES, expires_at=datetime.now(UTC) + timedelta(days=10))
    found = figures(stock)
    assert (found["EC", "active"], found["oct", "active"]) == (1, 1)
    assert 9 < found["key",] <= 10
    registry.mark_destroyed(kept.kid)
    assert figures(stock)["EC", "active"] == 0


def test_what_a_registry_does_not_say_stays_as_it_was(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_silent(_file: object) -> None:
        raise RegistryUnavailable

    watch = Watch(registry.check)
    watch._ask()
    stock = Stock(registry, watch)
    new(registry)
    found = figures(stock)
    monkeypatch.setattr(registry._database, "require", be_silent)
    assert figures(stock) == found
    asked: list[object] = []
    watch._ask()
    monkeypatch.setattr(registry._database, "require", asked.append)
    assert figures(stock) == found
    assert asked == []  # nobody waits for a registry that is known not to answer
