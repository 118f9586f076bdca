"""What became of keys and API tokens since an instant, as the audit log has it."""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from typing import Any, Final

from app.audit.lines import entry_of, reading
from app.kid import KeySetName

_DESTRUCTIONS_BEFORE: Final = ("keys.destroy", "cli.keys.destroy")
"""Endpoints of lines that had no member ``destroyed`` yet.

With ``destroy_at`` the key is only deleted, and may have been restored.
"""

_REVOCATIONS: Final = ("cli.token.revoke",)
_COMMANDS: Final = frozenset(
    {
        *("cli.keys.grant", "cli.keys.deactivate", "cli.keys.compromise", "cli.keys.adopt"),
        *("cli.keys.destroy", "cli.keys.restore", "cli.token.create"),
        *("cli.keysets.rotate", "cli.keysets.revoke"),
    }
)
_VALUES: Final = (
    "state",
    "owner",
    "expires_at",
    "alias",
    "destroy_at",
    "grantee",
    "operations",
    "tagged",
    "untagged",
)
_NAMES: Final = ("kid", "new_kid", "keyset", "owner", "token", "bearer")


@dataclass(frozen=True, kw_only=True)
class Change:
    """What one line says of a key: those of ``state``, ``owner``, … that it has.

    ``kid`` is a ``KeySetName`` where it is said of a key set, and so of all its versions.
    """

    time: str
    kid: str
    values: Mapping[str, Any]


@dataclass(kw_only=True)
class ChangesSince:
    """Kids destroyed, API tokens revoked, and changes of keys from the oldest to the newest.

    ``used`` has the last day, like 2026-01-31, on which anything was done with a kid.
    ``others`` are lines, in short, that say of a change no more than that there was one.
    ``is_whole`` says whether the log begins before the instant.
    """

    destroyed: set[str] = field(default_factory=set)
    revoked: set[str] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)
    used: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    is_whole: bool = False


def since(paths: Iterable[Path], instant: datetime, changing: Set[str]) -> ChangesSince:
    """Return what the lines of ``paths`` say of the time from ``instant``; files may be missing.

    ``changing`` are the endpoints that change keys. Raises ``OSError`` for what is no audit log.
    """
    history = ChangesSince()
    for entry in chain.from_iterable(map(_entries, filter(Path.exists, paths))):
        if datetime.fromisoformat(entry["time"]) < instant:
            history.is_whole = True
        else:
            _add(history, entry, changing | _COMMANDS)
    history.changes.sort(key=lambda change: change.time)  # of several hosts
    return history


def _add(history: ChangesSince, entry: dict[str, Any], changing: Set[str]) -> None:
    endpoint = entry.get("endpoint")
    if "destroyed" in entry:  # whatever was answered
        history.destroyed.update(_each(entry["destroyed"]))
        return
    if entry.get("status", HTTPStatus.OK) >= HTTPStatus.BAD_REQUEST:
        return
    _add_use(history, entry)
    if endpoint in _DESTRUCTIONS_BEFORE and "destroy_at" not in entry:
        history.destroyed.add(str(entry["kid"]))
    elif "settled" in entry:  # of ``reconcile``, which did not say ``destroyed`` yet
        history.destroyed.update(map(str, entry["settled"]))
    elif endpoint in _REVOCATIONS:
        history.revoked.add(str(entry["token"]))
    elif endpoint in changing:
        _add_change(history, entry)


def _add_use(history: ChangesSince, entry: dict[str, Any]) -> None:
    day = entry["time"][: len("2026-01-31")]
    for kid in {entry.get("kid"), *entry.get("kids", ())} - {None}:
        history.used[kid] = max(day, history.used.get(kid, day))


def _each(destroyed: Any) -> Iterator[str]:
    """Give the kid of a key, or those of the versions of a key set."""
    yield from map(str, destroyed if isinstance(destroyed, list) else [destroyed])


def _add_change(history: ChangesSince, entry: dict[str, Any]) -> None:
    values: dict[str, Any] = {name: entry[name] for name in _VALUES if name in entry}
    kid = entry.get("kid")
    if not kid and "keyset" in entry:
        kid = KeySetName.of(entry["keyset"])
    if kid and values:
        history.changes.append(Change(time=entry["time"], kid=kid, values=values))
    else:
        members = (f"{name}={entry[name]}" for name in _NAMES if entry.get(name) is not None)
        history.others.append(f"{entry['time']} {entry['endpoint']} {' '.join(members)}")


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """Give the lines of a file; raise ``OSError`` if it has others only."""
    is_log = None
    with reading(path) as lines:
        for entry in map(entry_of, lines):
            is_log = bool(is_log or entry)
            if entry:
                yield entry
    if is_log is False:
        raise OSError(f"{path}: there is no line that can be read")
