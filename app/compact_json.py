"""JSON as the service writes it for itself and for others: in one line of ASCII."""

import json
from collections.abc import Mapping
from typing import Any, Final

import orjson

dumps: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
"""Return a value without white space, members in their order."""

_DELETE: Final = "\x7f"


def line(members: Mapping[str, Any]) -> str:
    """Return what ``dumps`` returns, in a tenth of the time, for the lines of logs.

    That holds for texts, whole numbers and milliseconds. What the faster library would not write
    in ASCII, or does not take, the other one writes.
    """
    try:
        text = orjson.dumps(members).decode("utf-8")
    except orjson.JSONEncodeError:  # a lone surrogate, or a number of more than 64 bits
        return dumps(members)
    return text if text.isascii() and _DELETE not in text else dumps(members)
