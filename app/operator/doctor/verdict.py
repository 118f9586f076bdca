"""How a step of the doctor ends, and what is to be done about it."""

from enum import StrEnum
from typing import NamedTuple


class Result(StrEnum):
    """How a step ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Advice(NamedTuple):
    """``seen`` and ``advice`` are filled with the facts and the settings."""

    result: Result
    seen: str
    advice: str = ""


def ok(seen: str) -> Advice:
    """Return the advice on a step that went well: none."""
    return Advice(Result.OK, seen)


def warning(seen: str, advice: str) -> Advice:
    """Return what should be seen to."""
    return Advice(Result.WARNING, seen, advice)


def failed(seen: str, advice: str) -> Advice:
    """Return what has to be mended."""
    return Advice(Result.FAILED, seen, advice)


def skipped(seen: str) -> Advice:
    """Return why a step was not taken."""
    return Advice(Result.SKIPPED, seen)
