"""The header sections that clients commonly send, read in one go. All others are gunicorn's.

Of each that is read here gunicorn makes the same. What is odd in any way is not judged here.
"""

import re
from collections.abc import Collection
from typing import Final, NamedTuple

_MOST_BYTES: Final = 4096
# In a path nothing is encoded, and there is no query. Names have letters and hyphens; values are
# visible ASCII behind a single space.
_HEAD: Final = re.compile(
    rb"(GET|POST|PUT|PATCH|DELETE) (/(?!/)[\w.~/-]*) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z][A-Za-z-]*: [!-~](?:[ -~]*[!-~])?\r\n){1,50})\r\n"
)


class CommonHead(NamedTuple):
    """A header section; names of fields are in capitals, each is there once."""

    method: str
    path: str
    fields: list[tuple[str, str]]
    size_bytes: int


def read(data: bytes, *, most_bytes: int, but: Collection[str]) -> CommonHead | None:
    """Return the header section that ``data`` begins with, if it is a common one.

    It is none if it is longer than ``most_bytes``, or has one of the fields ``but``.
    """
    head = _HEAD.match(data, 0, min(most_bytes, _MOST_BYTES))
    if head is None:
        return None
    method, path, lines = (part.decode("ascii") for part in head.groups())
    split = (line.partition(": ") for line in lines.split("\r\n")[:-1])
    fields = [(name.upper(), value) for name, _, value in split]
    names = {name for name, _ in fields}
    if len(names) < len(fields) or not names.isdisjoint(but):
        return None
    return CommonHead(method, path, fields, head.end())
