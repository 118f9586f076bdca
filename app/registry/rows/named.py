"""Keys by several names, read at once."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection

from app.kid import KeySetName
from app.registry.databases.queries import FIND_ALL_CURRENT_FOR, FIND_ALL_FOR
from app.registry.databases.reading import UNREADABLE
from app.registry.records import VISIBLE, Key, hot_record_of

Granted = tuple[Key, frozenset[str]]
"""A key, and what is granted on it."""


def find_all(
    connection: Connection, principal: str, kids: Collection[str]
) -> Mapping[str, Granted]:
    """Return visible keys by the ``kids`` and aliases that name them, and what is granted.

    Raises one of ``UNREADABLE`` if a row cannot be read.
    """
    asked = {"principal": str(principal), "kids": list(kids)}
    sets = [kid.name for kid in kids if isinstance(kid, KeySetName)]
    names: defaultdict[str, set[str | None]] = defaultdict(set)
    rows: dict[str, Any] = {}
    granted: defaultdict[str, set[str]] = defaultdict(set)
    found = connection.execute(FIND_ALL_FOR, asked | {"number": len(set(kids))})
    called: list[tuple[Any, tuple[str | None, ...]]]
    called = [(row, (row.kid, row.kid_public, row.alias)) for row in found]
    if sets:
        found = connection.execute(FIND_ALL_CURRENT_FOR, asked | {"kids": sets})
        called += [(row, (KeySetName.of(row.keyset),)) for row in found]
    for row, its_names in called:
        rows[row.kid] = row
        granted[row.kid].update({row.operation} - {None})
        names[row.kid].update(its_names)
    return {
        name: (hot_record_of(row), frozenset(granted[kid]))
        for kid, row in rows.items()
        if row.state in VISIBLE
        for name in names[kid]
        if name is not None and name in kids
    }


def find_readable(
    connection: Connection, principal: str, kids: Collection[str]
) -> tuple[Mapping[str, Granted], frozenset[str]]:
    """Return the same, and which of ``kids`` name keys whose rows cannot be read.

    All are read at once, and in halves only if that fails.
    """
    try:
        return find_all(connection, principal, kids), frozenset()
    except UNREADABLE:
        if len(kids) == 1:
            return {}, frozenset(kids)
    names = list(kids)
    middle = len(names) // 2
    first, lost = find_readable(connection, principal, names[:middle])
    others, more_lost = find_readable(connection, principal, names[middle:])
    return {**first, **others}, lost | more_lost
