"""The header sections that clients commonly send, read in one go. All others are gunicorn's.

Of each that is read here gunicorn makes the same. What is odd in any way is not judged here.
"""

import re
from collections.abc import Collection, Iterable, Sequence, Set
from typing import Final, NamedTuple

_MOST_BYTES: Final = 4096
# In a path nothing is encoded, and there is no query. Names have letters and hyphens; values are
# visible ASCII behind a single space.
_HEAD: Final = re.compile(
    r"(GET|POST|PUT|PATCH|DELETE) (/(?!/)[\w.~/-]*) HTTP/1\.1\r\n"
    r"((?:[A-Za-z][A-Za-z-]*: [!-~](?:[ -~]*[!-~])?\r\n){1,50})\r\n",
    re.ASCII,
)
_FIELD: Final = re.compile(r"([^:]+): ([^\r]+)\r\n")
_FRAMING: Final = frozenset({"TRANSFER-ENCODING", "EXPECT"})


class CommonHead(NamedTuple):
    """A header section; names of fields are in capitals, each is there once."""

    method: str
    path: str
    fields: list[tuple[str, str]]
    names: Set[str]
    octets: bytes
    body_bytes: int | None
    """The length of the body, unless it comes in another way than at once."""
    is_last: bool
    """Whether the client says that nothing follows."""

    def begins(self, data: bytes) -> bool:
        """Tell whether ``data`` begins with the very same, which ends with its empty line."""
        return data.startswith(self.octets)


def _body_bytes(fields: Sequence[tuple[str, str]], names: Set[str]) -> int | None:
    if not names.isdisjoint(_FRAMING):
        return None
    length = next((value for name, value in fields if name == "CONTENT-LENGTH"), "0")
    return int(length) if length.isdigit() else None


def says_close(fields: Iterable[tuple[str, str]]) -> bool:
    """Tell whether ``Connection`` does, which is a list (RFC 9110 §7.6.1); gunicorn takes none."""
    return any(
        option.strip(" \t").lower() == "close"
        for name, value in fields
        if name == "CONNECTION"
        for option in value.split(",")
    )


def read(data: bytes, *, most_bytes: int, but: Collection[str]) -> CommonHead | None:
    """Return the header section that ``data`` begins with, if it is a common one.

    It is none if it is longer than ``most_bytes``, or has one of the fields ``but``.
    """
    head = _HEAD.match(data[: min(most_bytes, _MOST_BYTES)].decode("latin-1"))
    if head is None:
        return None
    method, path, lines = head.groups()
    fields = [(name.upper(), value) for name, value in _FIELD.findall(lines)]
    names = {name for name, _ in fields}
    if len(names) < len(fields) or not names.isdisjoint(but):
        return None
    octets, body_bytes = data[: head.end()], _body_bytes(fields, names)
    return CommonHead(method, path, fields, names, octets, body_bytes, says_close(fields))
