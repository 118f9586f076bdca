"""Durations as ISO 8601 writes them: of weeks, days and less, which are always as long."""

import re
from datetime import timedelta
from typing import Final

LONGEST: Final = timedelta(days=3650)
PATTERN: Final = (
    r"P(?=.)(?:([0-9]{1,8})W)?(?:([0-9]{1,8})D)?"
    r"(?:T(?=.)(?:([0-9]{1,9})H)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9})S)?)?"
)
_FORM: Final = re.compile(PATTERN)
_UNITS: Final = ("weeks", "days", "hours", "minutes", "seconds")


def read_duration(text: str) -> timedelta:
    """Return the duration that ``text`` is; raise ``ValueError`` with what it must be.

    Years and months are refused: nobody knows how long they are.
    """
    found = _FORM.fullmatch(text)
    numbers = map(int, found.groups("0")) if found else ()
    duration = timedelta(**dict(zip(_UNITS, numbers, strict=False)))
    if not timedelta(0) < duration <= LONGEST:
        raise ValueError(f"must be like P30D or PT12H, of PT1S to {write_duration(LONGEST)}")
    return duration


def write_duration(duration: timedelta) -> str:
    """Return whole seconds in days, hours, minutes and seconds."""
    hours, rest = divmod(duration.seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    parts = ((hours, "H"), (minutes, "M"), (seconds, "S"))
    time = "".join(f"{number}{unit}" for number, unit in parts if number)
    days = f"{duration.days}D" if duration.days else ""
    return f"P{days}T{time}" if time else f"P{days}"
