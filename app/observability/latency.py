"""How long requests take, by kind, as far as a histogram can tell."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from app.observability.kinds import KINDS, Kind

_HALF: Final = 0.5
_NEARLY_ALL: Final = 0.99


class Bucket(NamedTuple):
    """How many answers of an endpoint took no longer than ``seconds``."""

    endpoint: str
    seconds: float
    number: int


class Latency(NamedTuple):
    """Within how many seconds half of the answers were made, and 99 of 100.

    Each is the bound of a bucket, and so the least that is known to be enough; it may be infinite.
    """

    half: float
    nearly_all: float


def latencies(
    buckets: Iterable[Bucket], kinds: Mapping[str, Kind]
) -> tuple[Mapping[str, Latency], Latency | None]:
    """Return the latency of each kind of which there were any requests, and of all together."""
    found: defaultdict[str, Counter[float]] = defaultdict(Counter)
    for endpoint, seconds, number in buckets:
        if (kind := kinds.get(endpoint, Kind.OTHER)) in KINDS:
            found[kind][seconds] += number
    everything = sum(found.values(), Counter[float]())
    of_kinds = {kind: one for kind in found if (one := _latency(found[kind]))}
    return of_kinds, _latency(everything)


def _latency(numbers: Mapping[float, int]) -> Latency | None:
    total = numbers.get(math.inf, 0)
    if not total:
        return None
    return Latency(*(_bound(numbers, share * total) for share in (_HALF, _NEARLY_ALL)))


def _bound(numbers: Mapping[float, int], wanted: float) -> float:
    return min(seconds for seconds, number in numbers.items() if number >= wanted)
