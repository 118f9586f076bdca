"""How often a property is tried, and how many rounds a race goes."""

from tests.shared.waiting import are_promises_held

_PART = 8


def examples(number: int) -> int:
    """Return ``number`` for ``make faults``, which has the time, and an eighth for the suite."""
    return number if are_promises_held() else number // _PART


def rounds(number: int, *, short: int) -> int:
    """Return ``number`` for ``make faults``, and ``short`` for the suite."""
    return number if are_promises_held() else short
