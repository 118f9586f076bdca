"""What there is, for whoever watches: keys by type and state, what expires next, a refused PIN."""

import logging
import math
from datetime import UTC, datetime, timedelta
from typing import Final

from app.errors import RegistryUnavailable
from app.observability.metrics import Metrics
from app.registry import Registry
from hsm import Cause, Hsm, Periodic

logger = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 5.0
_DAY: Final = timedelta(days=1)


class Stock(Periodic):
    """Puts it into ``metrics`` now and then; each worker sees the same, so the newest counts."""

    def __init__(self, registry: Registry, hsm: Hsm, metrics: Metrics) -> None:
        super().__init__("stock", self.look, pause_seconds=_PAUSE_SECONDS, is_jittered=True)
        self._registry = registry
        self._hsm = hsm
        self._metrics = metrics

    def look(self) -> None:
        """Look once; what cannot be known now stays as it was."""
        self._metrics.refused_pin(self._hsm.state.cause is Cause.PIN)
        now = datetime.now(UTC)
        try:
            census = self._registry.census
            self._metrics.counted(census.tallies.by_state())
            for of, at in (
                ("key", census.next_expiry(now)),
                ("api_token", self._registry.credentials.next_expiry(now)),
            ):
                self._metrics.expires_in(of, math.inf if at is None else (at - now) / _DAY)
        except RegistryUnavailable as error:
            logger.debug("keys are counted later: %s", error)
