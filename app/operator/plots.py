"""An hour as bars, one a minute, in the units of an SVG that scales."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from app.observability import Outcomes

WIDTH: Final = 240
HEIGHT: Final = 48
_LEAST: Final = 2.0


class Rectangle(NamedTuple):
    """A part of a bar: the ``outcome`` that it shows, and its place."""

    outcome: str
    x: float
    y: float
    width: float
    height: float


class Bar(NamedTuple):
    """A minute, so many ``minutes_ago``, in which there was anything."""

    minutes_ago: int
    outcomes: Outcomes
    rectangles: list[Rectangle]


class Plot:
    """The outcomes of one kind of request, by minute, the present one last."""

    def __init__(self, title: str, minutes: Sequence[Outcomes], latency: str | None = None) -> None:
        self.title: Final = title
        self.latency: Final = latency
        """In words; not of the hour alone."""
        self._minutes = minutes
        self.total: Final = Outcomes.together(minutes)
        self.most: Final = max(outcomes.total for outcomes in minutes)
        """In one minute."""

    @property
    def bars(self) -> Iterator[Bar]:
        """The bars; the highest is as high as the plot."""
        for place, outcomes in enumerate(self._minutes):
            if outcomes.total:
                yield Bar(
                    len(self._minutes) - 1 - place, outcomes, list(self._stack(place, outcomes))
                )

    def _stack(self, place: int, outcomes: Outcomes) -> Iterator[Rectangle]:
        """Give what is in a bar from the bottom up; what there is at all is seen."""
        step, bottom = WIDTH / len(self._minutes), float(HEIGHT)
        heights = {
            outcome: max(_LEAST, HEIGHT * number / self.most)
            for outcome, number in outcomes._asdict().items()
            if number
        }
        scale = min(1.0, HEIGHT / sum(heights.values()))
        for outcome, height in heights.items():
            bottom = max(0.0, bottom - height * scale)
            yield Rectangle(
                outcome,
                round(place * step, 2),
                round(bottom, 2),
                step - 1,
                round(height * scale, 2),
            )
