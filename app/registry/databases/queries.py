"""The queries of keys that requests make, with what is granted to whoever asks."""

from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    and_,
    bindparam,
    distinct,
    exists,
    func,
    literal_column,
    or_,
    select,
    union_all,
)

from app.registry.tables import grants, keys, keysets, versions

# What operations need of a key; every request reads it.
_HOT: Final = (
    *("kid", "kid_public", "owner", "kty", "alg", "crv", "bits", "origin", "residency"),
    *("state", "public_jwk", "expires_at", "alias", "signs_digests"),
    *("storage", "kek", "blob", "seal"),
)
_IS_GRANT: Final = and_(
    grants.c.kid == keys.c.kid,
    or_(grants.c.principal == bindparam("principal"), grants.c.principal == literal_column("'*'")),
)
_IS_ASKED: Final = grants.c.operation == bindparam("operation")
_GRANTED: Final = (
    exists(grants).where(_IS_GRANT, _IS_ASKED).label("is_granted"),
    exists(grants).where(_IS_GRANT).label("is_known"),
)
_CALLED: Final = keys.c.alias == bindparam("kid")
_SELECT: Final = select(*(keys.c[name] for name in _HOT))


def _named(query: Select[Any]) -> CompoundSelect[Any]:
    """Return the one row of ``query`` that a kid names, or else of the pair whose public kid it is.

    The other index is not looked at for a kid that is found: of a million keys it is on pages that
    nobody has read.
    """
    kid: Any = bindparam("kid")
    both = union_all(query.where(keys.c.kid == kid), query.where(keys.c.kid_public == kid))
    return both.limit(literal_column("1")).offset(literal_column("0"))  # no parameters of its own


FIND: Final = _named(_SELECT)
FIND_FOR: Final = _named(_SELECT.add_columns(*_GRANTED))
_IS_CURRENT: Final = keys.c.kid == keysets.c.current_kid
_CURRENT_FOR: Final = _SELECT.where(_IS_CURRENT, keysets.c.name == bindparam("kid"))
FIND_CURRENT_FOR: Final = _CURRENT_FOR.add_columns(*_GRANTED)
FIND_CALLED_FOR: Final = _SELECT.where(_CALLED).add_columns(*_GRANTED)
_KIDS: Final[Any] = bindparam("kids", expanding=True)
_ALL_FOR: Final = select(*(keys.c[name] for name in _HOT), grants.c.operation).select_from(
    keys.outerjoin(grants, _IS_GRANT)
)
_FOUND: Final = _ALL_FOR.where(or_(keys.c.kid.in_(_KIDS), keys.c.alias.in_(_KIDS))).cte("found")
_IS_MORE_NAMED: Final[Any] = select(
    func.count(distinct(_FOUND.c.kid))
).scalar_subquery() < bindparam("number")
FIND_ALL_FOR: Final = select(_FOUND).union_all(
    _ALL_FOR.where(keys.c.kid_public.in_(_KIDS), _IS_MORE_NAMED)  # see ``_named``
)
FIND_ALL_CURRENT_FOR: Final = (
    select(*(keys.c[name] for name in _HOT), grants.c.operation, keysets.c.name.label("keyset"))
    .select_from(keysets.join(keys, _IS_CURRENT).outerjoin(grants, _IS_GRANT))
    .where(keysets.c.name.in_(_KIDS))
)

_RETIRING: Final = select(func.min(versions.c.retires_at)).where(
    versions.c.state == literal_column("'previous'")
)
_HAS_CURRENT: Final = exists(versions).where(
    versions.c.kid == keysets.c.current_kid, versions.c.state != literal_column("'compromised'")
)
_HAS_NEXT: Final = exists(versions).where(versions.c.kid == keysets.c.next_kid)
IS_LACKING: Final = or_(~_HAS_CURRENT, and_(keysets.c.next_kid.is_not(None), ~_HAS_NEXT))
"""Of a key set whose current or next version is of no use, or is not there."""
IS_SPENT: Final = and_(_IS_CURRENT, keys.c.encryptions >= bindparam("most_encryptions"))


def _is_any_set(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists(select(keysets.c.id).where(condition).correlate(None))


OUTLOOK: Final = select(
    func.min(keysets.c.rotates_at).label("rotates_at"),
    func.min(keysets.c.due_at).label("due_at"),
    _RETIRING.scalar_subquery().label("retires_at"),
    or_(
        _is_any_set(keysets.c.unaudited.is_not(None)),
        _is_any_set(IS_LACKING),
        _is_any_set(IS_SPENT),
    ).label("is_now"),
)
"""When something is to be done with a key set: every worker asks, all the time."""
