"""The versions of a key set in time: bars on one scale, in the units of an SVG that stretches."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

WIDTH: Final = 1000
_LEAST: Final = timedelta(minutes=1)

Version = Mapping[str, Any]


class Bar(NamedTuple):
    """A time in the life of a version: ``phase`` is what it was then, or will be."""

    phase: str
    begins: datetime
    ends: datetime
    x: float
    width: float


class Row(NamedTuple):
    """A version with its bars."""

    version: Version
    bars: list[Bar]


class Timeline:
    """All versions from the first that was published until the last is published no more."""

    def __init__(self, keyset: Mapping[str, Any], now: datetime | None = None) -> None:
        self._keyset: Final = keyset
        self._now: Final = now or datetime.now(UTC)
        phases = [(version, list(self._phases(version))) for version in keyset["versions"]]
        instants = [one for _, times in phases for _, *ends in times for one in ends]
        self.begins: Final = min(instants, default=self._now)
        self.ends: Final = max([self._now, *instants, self.begins + _LEAST])
        self.rows: Final[Sequence[Row]] = [
            Row(version, [self._bar(*times) for times in of_version])
            for version, of_version in phases
        ]

    @property
    def now(self) -> float:
        """Where the present is."""
        return self._place(self._now)

    def _phases(self, version: Version) -> Iterator[tuple[str, datetime, datetime]]:
        """Give when a version is published before it signs, signs, and is published after that.

        Of what has no end yet, the end is the present, or when the next rotation is planned.
        """
        planned = max(self._now, self._keyset["rotates"] or self._now)
        published, current, retires = map(version.get, ("published", "current", "retires"))
        signs_until = self._followed(version) or planned
        if published and published != current:
            yield "ahead", published, max(published, current or planned)
        if current:
            yield "signs", current, max(current, signs_until)
        if retires:
            yield "after", min(signs_until, retires), retires

    def _followed(self, version: Version) -> datetime | None:
        """Return when the version after it became the current one."""
        began = [one["current"] for one in self._keyset["versions"] if one["current"]]
        current = version["current"]
        return min((one for one in began if current and one > current), default=None)

    def _bar(self, phase: str, begins: datetime, ends: datetime) -> Bar:
        x = self._place(begins)
        return Bar(phase, begins, ends, x, max(2.0, round(self._place(ends) - x, 1)))

    def _place(self, instant: datetime) -> float:
        return round(WIDTH * ((instant - self.begins) / (self.ends - self.begins)), 1)
