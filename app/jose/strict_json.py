"""Strict JSON: what two parsers may read differently is refused."""

import json
import math
from typing import Any, Final, NoReturn


def loads(text: bytes) -> dict[str, Any]:
    """Return the one JSON object that ``text`` is (RFC 8259), in UTF-8.

    Raises ``ValueError`` for anything else, and for duplicate members, NaN, Infinity, numbers
    beyond the range of a double, lone surrogates, and nesting too deep to parse.
    """
    try:
        parsed = _DECODER.decode(text.decode("utf-8"))
        if b"\\" in text:  # a lone surrogate can only come escaped
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(parsed, dict):
        raise ValueError("not an object")  # noqa: TRY004  # callers know one error
    return parsed


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


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
)
