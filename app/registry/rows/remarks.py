"""What is kept of keys beside their rows, and only people ask for."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, bindparam, null, select

from app.registry.databases.reading import UNREADABLE, readable
from app.registry.tables import tags, uses

_KIDS: Final[Any] = bindparam("kids", expanding=True)
_USES: Final = select(uses).where(uses.c.kid.in_(_KIDS))
_TAGS: Final = select(tags.c.kid, tags.c.tag, null().label("day")).where(tags.c.kid.in_(_KIDS))
# In one statement: each is a way to the database and back.
_OF_ALL: Final = _USES.with_only_columns(uses.c.kid, null().label("tag"), uses.c.day).union_all(
    _TAGS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remarks:
    """The tags of a key, sorted, and the day of its last use, if it has been used."""

    tags: Sequence[str] = ()
    used: date | None = None


def remarks_on(connection: Connection, kids: Collection[UUID]) -> Mapping[UUID, Remarks]:
    """Return those on each of ``kids``, if there are any."""
    its_tags: defaultdict[str, list[str]] = defaultdict(list)
    used: dict[str, date] = {}
    for row in _rows(connection, {"kids": list(map(str, kids))}):
        if row.tag is None:
            used[row.kid] = row.day
        else:
            its_tags[row.kid].append(row.tag)
    return {
        # Sorted here: databases have orders of their own.
        UUID(kid): Remarks(tags=sorted(its_tags[kid]), used=used.get(kid))
        for kid in its_tags.keys() | used.keys()
    }


class _Use(NamedTuple):
    """A row of ``uses``, as it is among those of ``tags``."""

    kid: str
    day: date
    tag: None = None


def _rows(connection: Connection, kids: Mapping[str, Sequence[str]]) -> Sequence[Any]:
    """Return all rows at once, or what can be read of them."""
    try:
        return connection.execute(_OF_ALL, kids).all()
    except UNREADABLE:
        used = readable(connection, _USES, lambda row: _Use(row.kid, row.day), None, kids)
        return [*used, *connection.execute(_TAGS, kids)]
