"""The versions of a key set in time, as bars."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.http.views.admin.timeline import WIDTH, Timeline

NOW = datetime(2026, 3, 31, tzinfo=UTC)


def day(number: int) -> datetime:
    """Return a day so many before NOW, or after it."""
    return NOW + timedelta(days=number)


def version(published: int | None, current: int | None, retires: int | None) -> dict[str, Any]:
    names = ("published", "current", "retires")
    days = (published, current, retires)
    return {name: None if at is None else day(at) for name, at in zip(names, days, strict=True)}


def bars(timeline: Timeline) -> list[list[tuple[str, float, float]]]:
    return [[(bar.phase, bar.x, bar.width) for bar in row.bars] for row in timeline.rows]


def test_a_version_is_published_ahead_signs_until_the_next_and_is_published_after_that():
    versions = [version(-70, -70, -20), version(-40, -30, None), version(-5, None, None)]
    timeline = Timeline({"versions": versions, "rotates": day(30)}, NOW)
    assert (timeline.begins, timeline.ends, timeline.now) == (day(-70), day(30), 700.0)
    assert bars(timeline) == [
        [("signs", 0.0, 400.0), ("after", 400.0, 100.0)],
        [("ahead", 300.0, 100.0), ("signs", 400.0, 600.0)],
        [("ahead", 650.0, 350.0)],
    ]


@pytest.mark.parametrize("versions", [[], [version(None, None, None)], [version(0, 0, None)]])
def test_what_has_no_length_is_drawn_all_the_same(versions):
    timeline = Timeline({"versions": versions, "rotates": None}, NOW)
    assert timeline.begins < timeline.ends
    assert 0 <= timeline.now <= WIDTH
    assert all(width >= 1 for row in bars(timeline) for _, _, width in row)
