"""What there is, for whoever looks at the figures: keys by type and state, what expires next."""

import logging
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from prometheus_client import Metric
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.errors import RegistryUnavailable
from app.observability.metrics import PREFIX
from app.registry import Registry, Watch

logger = logging.getLogger(__name__)

_DAY: Final = timedelta(days=1)


class Stock(Collector):
    """Asks the registry when somebody looks; what it does not say then stays as it was.

    Nobody waits for a registry that is known not to answer.
    """

    def __init__(self, registry: Registry, watch: Watch) -> None:
        self._registry = registry
        self._watch = watch
        self._keys: Mapping[tuple[str, ...], int] = {}
        self._expiries: Mapping[str, datetime | None] = dict.fromkeys(("key", "api_token"))

    def collect(self) -> Iterator[Metric]:
        """Give the figures; an expiry is infinite if nothing expires."""
        now = datetime.now(UTC)
        self._look(now)
        keys = GaugeMetricFamily(f"{PREFIX}keys", "Keys by type and state", labels=("kty", "state"))
        for kind, number in self._keys.items():
            keys.add_metric(kind, number)
        yield keys
        name, text = f"{PREFIX}days_until_expiry", "Until the next one expires"
        expiries = GaugeMetricFamily(name, text, labels=("of",))
        for of, at in self._expiries.items():
            expiries.add_metric((of,), math.inf if at is None else (at - now) / _DAY)
        yield expiries

    def _look(self, now: datetime) -> None:
        if self._watch.cause:
            return
        try:
            census, credentials = self._registry.census, self._registry.credentials
            # A series that has been seen goes on at 0.
            self._keys = dict.fromkeys(self._keys, 0) | census.tallies.by_state()
            self._expiries = {
                "key": census.next_expiry(now),
                "api_token": credentials.next_expiry(now),
            }
        except RegistryUnavailable as error:
            logger.debug("keys are counted later: %s", error)
