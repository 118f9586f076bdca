"""Strict JSON: what two parsers may read differently is refused."""

import json
import math
import sys
from typing import Any, Final, NoReturn

MOST_LEVELS: Final = 200
"""How deep arrays and objects may be in each other: what takes them apart, or writes them, may be
called from deep within other functions, and each level is a call."""

_LONGEST_INTEGER: Final = len("-") + sys.float_info.max_10_exp + 1
_HOLDERS: Final = frozenset({dict, list})


class TooDeep(ValueError):
    """There are more levels than ``MOST_LEVELS``."""


def loads(text: bytes) -> dict[str, Any]:
    """Return the one JSON object that ``text`` is (RFC 8259), in UTF-8.

    Raises ``ValueError`` for anything else, and for duplicate members, NaN, Infinity, numbers
    beyond the range of a double, lone surrogates, and nesting too deep (``TooDeep``).
    """
    try:
        parsed = _DECODER.decode(text.decode("utf-8"))
    except RecursionError:
        raise TooDeep from None
    if not isinstance(parsed, dict):
        raise ValueError("not an object")  # noqa: TRY004  # callers know one error
    if has_many(text, b"{[", more_than=MOST_LEVELS):
        _require_few_levels(parsed)
    if b"\\" in text:  # a lone surrogate can only come escaped
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    return parsed


def has_many(text: bytes, marks: bytes, *, more_than: int) -> bool:
    """Tell whether ``text`` has more bytes than that which are one of ``marks``.

    A text that is long is mostly one value. ``find`` passes by that thirty times as fast as
    ``count`` goes through it.
    """
    left = more_than
    for mark in marks:
        place = text.find(mark)
        while place >= 0:
            if not left:
                return True
            left -= 1
            place = text.find(mark, place + 1)
    return False


def _require_few_levels(members: dict[str, Any]) -> None:
    level: list[Any] = [members]
    for _ in range(MOST_LEVELS):
        level = [
            held
            for holder in level
            for held in (holder.values() if type(holder) is dict else holder)
            if type(held) in _HOLDERS
        ]
        if not level:
            return
    raise TooDeep


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError("number out of range")
    return value


def _whole(number: str) -> int:
    """Return an integer, unless it is as long as no double is: thousands of digits take long."""
    if len(number) > _LONGEST_INTEGER:
        raise ValueError("number out of range")
    return int(number)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite, parse_int=_whole
)
