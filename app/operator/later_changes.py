"""What was done to keys after a backup: what took rights away is done again, the rest is listed."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from app.audit import Change
from app.registry import State, VersionState
from app.registry.transfer import Row, TableRow

_SEVERITY: Final = tuple(State)  # a later one permits less


def _ends_sooner(before: str | None, after: str | None) -> bool:
    return after is not None and (before is None or _instant(after) < _instant(before))


_TAKES: Final[Mapping[str, Callable[[Any, Any], bool]]] = MappingProxyType(
    {
        "state": lambda before, after: _SEVERITY.index(after) > _SEVERITY.index(before),
        "owner": lambda before, after: before != after,
        "expires_at": _ends_sooner,
        "alias": lambda _before, _after: False,
        "destroy_at": lambda _before, after: after is not None,
    }
)
"""Whether a column of a key, set to a new value, takes a right away from somebody."""


@dataclass(kw_only=True)
class Key:
    """What a backup has of a key, or what the audit log says of it in the end."""

    columns: dict[str, str | None] = field(default_factory=dict)
    grants: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    tags: dict[str, bool] = field(default_factory=dict)

    def change(self, values: Mapping[str, Any]) -> None:
        """Take over what a later line says."""
        self.columns |= {name: _value(values[name]) for name in _TAKES if name in values}
        if "grantee" in values:
            self.grants[values["grantee"]] = set(values["operations"])
        self.tags |= dict.fromkeys(values.get("tagged", ()), True)
        self.tags |= dict.fromkeys(values.get("untagged", ()), False)


class Differences(NamedTuple):
    """What is taken away again, and what is for the operator to do; in words."""

    taken: Sequence[str]
    to_do: Sequence[str]


class LaterChanges:
    """What the audit log says of keys, the last word on each thing.

    ``names`` gives the kid of each key by either of its names; ``sets`` are those of key sets.
    """

    def __init__(
        self, changes: Iterable[Change], names: Mapping[str, str], sets: Collection[str] = ()
    ) -> None:
        self._sets = frozenset(sets)
        self._keys: defaultdict[str, Key] = defaultdict(Key)
        for change in changes:
            self._keys[names.get(change.kid, change.kid)].change(change.values)

    def reduced(self, table: str, row: Row) -> Row | None:
        """Return ``row`` without the rights that were taken away; ``None`` if none is left."""
        if self._is_of_deleted_set(table, row):
            return None
        later = self._keys.get(row.get("kid", ""))
        reduce = _REDUCED.get(table)
        return reduce(row, later) if later and reduce else row

    def _is_of_deleted_set(self, table: str, row: Row) -> bool:
        """Tell whether a row is of a key set that was deleted: its keys alone can be had back."""
        kid = row.get(_SET.get(table, "kid"), "")
        later = self._keys.get(kid) if kid in self._sets else None
        return later is not None and later.columns.get("destroy_at") is not None

    def differences(self, rows: Iterable[TableRow]) -> Differences:
        """Return what differs from ``rows``, those of the backup."""
        before: defaultdict[str, Key] = defaultdict(Key)
        for table, row in rows:
            if table == "keysets" and row["id"] in self._keys:
                before[row["id"]].columns = dict.fromkeys(_TAKES)
            elif row.get("kid") in self._keys:
                _note(before[row["kid"]], table, row)
        taken: list[str] = []
        to_do: list[str] = []
        for kid, later in sorted(self._keys.items()):
            for text, takes in _compared(before[kid], later):
                (taken if takes else to_do).append(f"{kid}: {text}")
        return Differences(taken, to_do)


def _columns(row: Row) -> dict[str, Any]:
    """Return what may be taken away; a deleted key has the state that it would return to."""
    return {name: row[name] for name in _TAKES} | {"state": row["state_before"] or row["state"]}


def _reduced_key(row: Row, later: Key) -> Row:
    before = _columns(row)
    taken = {n: value for n, value in later.columns.items() if _TAKES[n](before[n], value)}
    if "state" in taken and not row["deactivated_at"]:
        taken["deactivated_at"] = datetime.now(UTC).isoformat()
    reduced = row | before | taken
    if reduced["destroy_at"] is None:
        return reduced
    return reduced | {"state": State.DESTROYING, "state_before": reduced["state"]}


def _reduced_grant(row: Row, later: Key) -> Row | None:
    is_kept = row["operation"] in later.grants.get(row["principal"], {row["operation"]})
    return row if is_kept else None


def _reduced_tag(row: Row, later: Key) -> Row | None:
    return row if later.tags.get(row["tag"], True) else None


def _reduced_version(row: Row, later: Key) -> Row:
    """Return a version of a key set, ``compromised`` if its key is: another one has to follow."""
    is_compromised = later.columns.get("state") == State.COMPROMISED
    return row | {"state": VersionState.COMPROMISED} if is_compromised else row


_SET: Final = MappingProxyType({"keysets": "id", "versions": "keyset"})
"""The columns that name a key set, where that is no ``kid``."""

_REDUCED: Final[Mapping[str, Callable[[Row, Key], Row | None]]] = MappingProxyType(
    {
        "keys": _reduced_key,
        "grants": _reduced_grant,
        "tags": _reduced_tag,
        "versions": _reduced_version,
    }
)


def _note(key: Key, table: str, row: Row) -> None:
    if table == "keys":
        key.columns = _columns(row)
    elif table == "grants":
        key.grants[row["principal"]].add(row["operation"])
    elif table == "tags":
        key.tags[row["tag"]] = True


def _compared(before: Key, later: Key) -> Iterable[tuple[str, bool]]:
    """Give what is different later, and whether it takes something away."""
    for name, value in later.columns.items():
        if before.columns.get(name) != value:
            yield (
                f"{name} {value}",
                bool(before.columns) and _TAKES[name](before.columns[name], value),
            )
    for grantee, operations in later.grants.items():
        if lost := before.grants[grantee] - operations:
            yield f"{grantee} no longer {' '.join(sorted(lost))}", True
        if won := operations - before.grants[grantee]:
            yield f"{grantee} may {' '.join(sorted(won))}", False
    for tag, has in later.tags.items():
        if has is not (tag in before.tags):
            yield f"{'tag' if has else 'no tag'} {tag}", not has


def _value(value: Any) -> str | None:
    return None if value in {None, "None"} else str(value)  # the text in lines of before


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
