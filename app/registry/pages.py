"""Pages of keys, in the order of their kids.

A page is the merger of a few ranges, each read from an index in that order and no further than
the page is long: keys of the caller's, keys granted to him, keys granted to everybody.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    bindparam,
    or_,
    select,
    union,
)

from app.registry.databases.database import Database
from app.registry.databases.reading import readable
from app.registry.records import Key, State, record_of
from app.registry.rows.remarks import Remarks, remarks_on
from app.registry.tables import grants, keys, tags
from app.registry.uses import is_unused_since


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a list is narrowed to; ``after`` is the kid where the page before ended."""

    kty: str | None = None
    alg: str | None = None
    state: State | None = None
    tag: str | None = None
    owner: str | None = None
    unused_since: date | None = None
    after: str = ""
    limit: int = 50


_PLAIN: Final = ("kty", "alg", "owner")
_READER: Final[Any] = bindparam("reader")
_LENGTH: Final[Any] = bindparam("length", type_=Integer)
# Conditions that no index is wanted for: they would bring the rows in another order.
_HIDDEN: Final = (State.PENDING, State.WRAPPING, State.DESTROYED)
_INACTIVE: Final = tuple(state for state in State if state is not State.ACTIVE)


class Pages:
    """Lists of keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page_with_remarks(
        self, reader: str | None, filters: Filters
    ) -> tuple[Sequence[Key], Mapping[UUID, Remarks]]:
        """Return the keys that ``reader`` may read, or all for ``None``; one more than asked.

        The one beyond ``limit`` says that there is another page. What is kept of the keys beside
        their rows comes with them.
        """
        with self._database.reading() as connection:
            found = _page(connection, reader, filters)
            return found, remarks_on(connection, [key.kid for key in found])

    def remarks_on(self, kids: Collection[UUID]) -> Mapping[UUID, Remarks]:
        """Return what is kept of keys beside their rows; nothing of those that have none of it."""
        with self._database.reading() as connection:
            return remarks_on(connection, kids)


def _page(connection: Connection, reader: str | None, filters: Filters) -> list[Key]:
    lost: list[Any] = []
    query, parameters = query_of(reader, filters)
    found = readable(connection, query, record_of, lost, parameters)
    if not lost or len(found) + len(lost) <= filters.limit:
        return found
    last = max(lost[-1].kid, *(str(key.kid) for key in found[-1:]))
    return found + _page(connection, reader, replace(filters, after=last))


def query_of(reader: str | None, filters: Filters) -> tuple[Select[Any], Mapping[str, Any]]:
    """Return the statement of a page, and its parameters."""
    names = frozenset(name for name in _PLAIN if getattr(filters, name))
    of = _Statement(
        is_of_all=reader is None,
        names=names,
        state=filters.state,
        is_tagged=filters.tag is not None,
        unused_since=filters.unused_since,
    )
    parameters = {name: getattr(filters, name) for name in (*names, "tag", "after")}
    more = {"reader": reader, "length": filters.limit + 1, "now": datetime.now(UTC)}
    return _query(of), parameters | more


class _Statement(NamedTuple):
    """What tells the statements of pages apart; all else are parameters."""

    is_of_all: bool
    names: frozenset[str]
    state: State | None
    is_tagged: bool
    unused_since: date | None


@lru_cache
def _query(of: _Statement) -> Select[Any]:
    """Return a statement; to build it takes as long as to execute it."""
    kids = union(
        *(
            # A subquery of its own, as SQLite wants it of a part of a union that has an end.
            select(
                part.with_only_columns(kid.label("kid"))
                .where(kid > bindparam("after"))
                .order_by(kid)
                .limit(_LENGTH)
                .subquery()
                .c.kid
            )
            for part, kid in _parts(of)
        )
    ).subquery()
    return (
        select(keys)
        .join_from(kids, keys, keys.c.kid == kids.c.kid)
        .order_by(kids.c.kid)
        .limit(_LENGTH)
    )


Part = tuple[Select[Any], ColumnElement[str]]


def _parts(of: _Statement) -> Iterator[Part]:
    """Return selections of ``keys``, each with the column that leads it in order."""
    plain = [keys.c[name] == bindparam(name) for name in sorted(of.names)]
    if of.unused_since is not None:
        plain.append(is_unused_since(of.unused_since))
    for part, kid in _visible(of):
        for conditions, order in _states(of.state, kid):
            yield _tagged(part.where(*plain, *conditions), order, of)


def _visible(of: _Statement) -> Iterator[Part]:
    if of.is_of_all:
        yield select(keys), keys.c.kid
        return
    yield select(keys).where(keys.c.owner == _READER), keys.c.kid
    for grantee in (_READER, "*"):
        granted = select(keys).join_from(grants, keys, keys.c.kid == grants.c.kid)
        yield (
            granted.where(grants.c.principal == grantee, grants.c.operation == "read"),
            grants.c.kid,
        )


def _tagged(part: Select[Any], kid: ColumnElement[str], of: _Statement) -> Part:
    if not of.is_tagged:
        return part, kid
    tagged = part.join(tags, tags.c.kid == keys.c.kid).where(tags.c.tag == bindparam("tag"))
    return tagged, tags.c.kid if kid is keys.c.kid else kid


def _states(
    state: State | None, kid: ColumnElement[str]
) -> Iterator[tuple[list[ColumnElement[bool]], ColumnElement[str]]]:
    """Split by state: an active key that has expired is a deactivated one."""
    now = bindparam("now", type_=keys.c.expires_at.type)
    if state is None:
        yield [keys.c.state.not_in(_HIDDEN)], kid
    elif state is State.ACTIVE:
        yield (
            [keys.c.state == state, or_(keys.c.expires_at.is_(None), keys.c.expires_at > now)],
            kid,
        )
    else:
        yield [keys.c.state == state], kid
    if state is State.DEACTIVATED:
        # Not in the order of an index: the few that have expired are sorted.
        yield [keys.c.state.not_in(_INACTIVE), keys.c.expires_at <= now], kid.concat("")
