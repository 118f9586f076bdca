"""What an operator wants to know at a glance. The token is never asked for it."""

import math
import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import groupby
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from app.config import Config
from app.errors import Forbidden, RegistryUnavailable
from app.keys.capabilities import AlgorithmRow, Capabilities, algorithm_rows
from app.observability import KINDS, Kind, LastHour, Metrics, Outcomes
from app.observability.latency import Bucket, Latency, latencies
from app.operator.plots import Plot
from app.registry import Group, KeySet, Registry, State, VersionState, Watch
from app.rights import Principal, Right
from hsm import Hsm, Phase, TokenUnavailable

Versions = Iterable[tuple[str, str]]

STATES: Final[Mapping[State, str]] = MappingProxyType(
    {
        State.ACTIVE: "Active",
        State.DEACTIVATED: "Deactivated",
        State.COMPROMISED: "Compromised",
        State.DESTROYING: "To be destroyed",
        State.PENDING: "Being made",
        State.DESTROYED: "Being destroyed",
        State.WRAPPING: "To wrap for",
    }
)
PLACES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "token": "in the token",
        "process": "the key in the token, each message's in the process",
    }
)
PUBLISHED: Final = (VersionState.NEXT, VersionState.CURRENT, VersionState.PREVIOUS)
_ALL: Final = "All requests"
_MOST_KEYSETS: Final = 50
_IDLE_DAYS: Final = 90
_PACKAGES: Final = ("python-pkcs11", "cryptography", "gunicorn")


class KeysOfType(NamedTuple):
    """The keys of a type, as ``EC P-256`` or ``RSA 2048``, counted in the order of ``STATES``.

    ``idle`` are those of use that have not been used for long.
    """

    title: str
    numbers: Sequence[int]
    idle: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.numbers)


class KeySetRow(NamedTuple):
    """A key set: its current version, what is published, and when it rotates."""

    name: str
    keys: str
    version: int | None
    published: int
    rotates: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Gathers what is known already, in this process, in the registry and in the files."""

    config: Config
    hsm: Hsm
    registry: Registry
    watch: Watch
    metrics: Metrics
    history: LastHour
    capabilities: Capabilities
    kinds: Mapping[str, Kind]
    """Of the endpoints."""
    started: float
    """In seconds since the epoch."""

    def is_reader(self, principal: Principal) -> bool:
        """Tell whether ``principal`` may read every key, or nobody has a name."""
        return not self.config.auth or principal.may_on_every_key(Right.READ)

    def require_reader(self, principal: Principal) -> None:
        """Raise ``Forbidden`` unless ``principal`` may read every key, or nobody has a name."""
        if not self.is_reader(principal):
            raise Forbidden

    def describe(self) -> dict[str, Any]:
        """Return what the page shows."""
        keys = self._keys()
        return {
            "state": self.hsm.state,
            "token": self.config.token_label or self.config.token_serial or self.config.token_uri,
            "registry_answers": keys is not None and self.watch.cause is None,
            "workers": self.metrics.workers(),
            "now": datetime.now(UTC),
            "uptime": _in_words(timedelta(seconds=time.time() - self.started)),
            "plots": list(_plots(self.history.hour(), self.metrics.buckets(), self.kinds)),
            "keys": keys,
            "states": list(STATES.values()),
            "idle_days": _IDLE_DAYS,
            "keysets": self._keysets(),
            "algorithms": self._algorithms(),
            "places": PLACES,
            "versions": list(self._versions()),
        }

    def _keys(self) -> Sequence[KeysOfType] | None:
        """Return all keys by type, or ``None`` while the registry does not answer."""
        try:
            idle_since = datetime.now(UTC).date() - timedelta(days=_IDLE_DAYS)
            return _by_type(self.registry.census.groups(idle_since=idle_since))
        except RegistryUnavailable:
            return None

    def _keysets(self) -> Sequence[KeySetRow] | None:
        """Return those that come first by name, or ``None`` while the registry does not answer."""
        try:
            found = self.registry.keysets.page(None, after="", limit=_MOST_KEYSETS)
        except RegistryUnavailable:
            return None
        now = datetime.now(UTC)
        return [_row_of(keyset, now) for keyset in found]

    def _algorithms(self) -> Sequence[AlgorithmRow]:
        """Return what is offered; nothing is known while the token is away."""
        if self.hsm.state.phase is not Phase.READY:  # it would be waited for
            return ()
        try:
            return algorithm_rows(self.capabilities.describe(self.hsm.offers()))
        except TokenUnavailable:
            return ()

    def _versions(self) -> Versions:
        yield "jose-hsm", version("jose-hsm")
        yield "Python", platform.python_version()
        if product := self.hsm.product:
            yield "PKCS#11 library", f"{product.library} {product.library_version}"
            yield "PKCS#11", product.cryptoki_version
            yield "Token", product.token
            yield "Token hardware", product.hardware_version
            yield "Token firmware", product.firmware_version
        for package in _PACKAGES:
            yield package, version(package)
        yield "Registry schema", self._revision() or "unknown"

    def _revision(self) -> str | None:
        try:
            return self.registry.census.revision()
        except RegistryUnavailable:
            return None


def _row_of(keyset: KeySet, now: datetime) -> KeySetRow:
    current = keyset.version(keyset.current_kid)
    states = [version.state for version in keyset.versions]
    left = None if keyset.rotates_at is None else keyset.rotates_at - now
    return KeySetRow(
        name=keyset.name,
        keys=" ".join(filter(None, (keyset.spec.kty, keyset.spec.alg))),
        version=None if current is None else current.number,
        published=sum(state in PUBLISHED for state in states) if keyset.is_published else 0,
        rotates=_rotates(left),
    )


def _rotates(left: timedelta | None) -> str:
    if left is None:
        return "on request"
    return "overdue" if left < timedelta(0) else f"in {_in_words(left)}"


def _by_type(groups: Iterable[Group]) -> list[KeysOfType]:
    ordered = sorted(groups, key=lambda group: (group.kty, group.crv or "", group.bits or 0))
    return [_keys_of(title, list(of_type)) for title, of_type in groupby(ordered, key=_title)]


def _keys_of(title: str, groups: Sequence[Group]) -> KeysOfType:
    numbers = Counter[State]()
    for group in groups:
        numbers[group.state] += group.number
    idle = sum(group.number for group in groups if group.is_idle)
    return KeysOfType(title, [numbers[state] for state in STATES], idle)


def _title(group: Group) -> str:
    return " ".join(str(part) for part in (group.kty, group.crv or group.bits) if part)


def _plots(
    hour: Mapping[str, Sequence[Outcomes]], buckets: Iterable[Bucket], kinds: Mapping[str, Kind]
) -> Iterator[Plot]:
    of_kinds, of_all = latencies(buckets, kinds)
    everything = [Outcomes.together(minute) for minute in zip(*hour.values(), strict=True)]
    yield Plot(_ALL, everything, _within(of_all))
    for kind, title in KINDS.items():
        yield Plot(title, hour[kind], _within(of_kinds.get(kind)))


def _within(latency: Latency | None) -> str | None:
    if latency is None:
        return None
    half, nearly_all = (_bound(seconds) for seconds in latency)
    return f"99 of 100 {half}" if half == nearly_all else f"half {half}, 99 of 100 {nearly_all}"


def _bound(seconds: float) -> str:
    """Return a bound in the unit that people read it in."""
    if math.isinf(seconds):
        return "over 30 s"
    return f"within {seconds:g} s" if seconds >= 1 else f"within {1000 * seconds:g} ms"


def _in_words(duration: timedelta) -> str:
    """Return a duration in its two largest units."""
    minutes, seconds = divmod(int(duration.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((place for place, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2])
