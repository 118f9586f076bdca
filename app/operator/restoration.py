"""Putting a backup in the place of the registry, so that nothing comes back that must not.

Between a backup and its restoration keys have been used, changed, destroyed and made, and tokens
revoked. So what was destroyed, revoked or taken away by the audit log stays so; a key that was
being made is left out, for whoever finishes what is unfinished would destroy it on the token; one
that was deleted may have been restored since, and is there for a day at least; each AES-GCM key
counts as having encrypted as often as it can have since; and a key was used last on the latest day
that the backup, the registry that is there and the audit log know of.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final
from uuid import UUID

import hsm
from app.audit import ChangesSince
from app.keys.budget import MOST_ENCRYPTIONS, is_counted_for
from app.kid import KeySetName
from app.operator import backup
from app.operator.backup import Contents
from app.operator.errors import BackupError
from app.operator.later_changes import Differences, LaterChanges
from app.operator.resealing import resealed
from app.registry import Age, State, compared, migrate, transfer
from hsm import Cause, Hsm, KeySpec, TokenUnavailable

FASTEST_A_SECOND: Final = 50_000
"""More encryptions than any service of ours has made with one key, in batches and on all cores."""

_TO_THINK: Final = timedelta(days=1)
_KID: Final = MappingProxyType(
    {
        **dict.fromkeys(("keys", "grants", "tags", "repetitions", "versions", "uses"), "kid"),
        "keysets": "current_kid",
    }
)
"""The columns that name the key without which a row is nothing."""


Reseal = Callable[[transfer.Row, transfer.Row], transfer.Row]
"""Takes the row of a key in the backup, and what it is to be."""


@contextmanager
def alone(state_dir: Path, url: str) -> Iterator[None]:
    """Let no service of this host start during one ``with`` block.

    Raises ``BackupError`` if one is running, or if others use the database of the registry, and
    ``TokenUnavailable`` if the directory cannot be used.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(hsm.file_lock(serving_lock(state_dir), wait_seconds=0))
        except TokenUnavailable as error:
            if error.cause is not Cause.BUSY:
                raise
            raise BackupError("the service is running: stop it first") from None
        others = transfer.connections_of_others(url)
        if others:
            raise BackupError(
                f"others use the registry ({others} connections): stop all services that share "
                "it, and close what else is connected"
            )
        yield


def serving_lock(state_dir: Path) -> Path:
    """Return the file that every process that serves holds a shared lock on."""
    return state_dir / "serving.lock"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a restoration will do; ``left_out`` are kids of keys that were being made.

    ``encryptions`` are added to those of each AES-GCM key; ``counted`` are those of the registry
    that is there, by kid. ``used`` are the days on which keys of the backup were used last, as far
    as others than the backup know.
    ``reseal`` makes a row of a key what it has to be that was another one.
    """

    path: Path
    contents: Contents
    left_out: frozenset[str]
    destroyed: frozenset[str]
    revoked: frozenset[str]
    later: LaterChanges
    encryptions: int
    counted: Mapping[str, int]
    used: Mapping[str, str]
    reseal: Reseal

    def rows(self) -> Iterator[transfer.TableRow]:
        """Give the rows as they will be."""
        now, used = datetime.now(UTC), dict(self.used)
        for table, found in self._kept_rows():
            row = self.later.reduced(table, found)
            if row is None:
                continue
            if table == "keys":
                row = self.reseal(found, row)  # and nothing else of it
                row["encryptions"] = self._encryptions(row)
                row["destroy_at"] = _later(row["destroy_at"], now + _TO_THINK)
            elif table == "tokens" and row["id"] in self.revoked:
                row["revoked_at"] = row["revoked_at"] or now.isoformat()
            elif table == "uses":
                row["day"] = max(row["day"], used.pop(row["kid"], row["day"]))
            yield table, row
        for kid, day in used.items():
            yield "uses", {"kid": kid, "day": day}

    def differences(self) -> Differences:
        """Return what was done to keys since, apart from destroying them."""
        return self.later.differences(self._kept_rows())

    def _kept_rows(self) -> Iterator[transfer.TableRow]:
        """Give the rows of the backup as the newest schema has them, without what is gone."""
        gone = self.left_out | self.destroyed
        with transfer.brought_up_to_date(
            self.contents.revision, backup.rows_of(self.path)
        ) as newest:
            for table, row in newest:
                if not (table in _KID and row[_KID[table]] in gone):
                    yield table, row

    def specs(self) -> Mapping[UUID, KeySpec]:
        """Return what the keys are that are to be on the token."""
        return transfer.specs_of(self.rows())

    def kids(self) -> Iterator[UUID]:
        """Give the kids of all keys, also of those that somebody is to wrap another one for."""
        return (UUID(row["kid"]) for table, row in self.rows() if table == "keys")

    def _encryptions(self, row: transfer.Row) -> int:
        counted = int(row["encryptions"])
        if not is_counted_for(row["alg"]):
            return counted
        since = min(counted + self.encryptions, MOST_ENCRYPTIONS)
        return max(counted, since, self.counted.get(row["kid"], 0))


def plan(
    path: Path,
    url: str,
    history: ChangesSince,
    *,
    encryptions: int | None,
    token: Hsm | None = None,
) -> Plan:
    """Return what restoring the backup ``path`` to the registry at ``url`` means.

    ``encryptions`` is the most that any key has done since, if that is known. ``token`` seals the
    rows of keys that it has encrypted, and that have another owner since. Raises
    ``BackupError`` if the backup is damaged, of a newer version, or of a time to come.
    """
    contents = backup.read(path)
    if compared(contents.revision).age not in {Age.CURRENT, Age.OLD}:
        raise BackupError(
            f"{path} has schema {contents.revision}, which this version does not know: restore it "
            "with the version that wrote it"
        )
    age_seconds = (datetime.now(UTC) - contents.taken_at).total_seconds()
    if age_seconds < 0:
        raise BackupError(f"{path} is of {contents.taken_at}, and that is not yet: set the clock")
    names = _names(path)
    gone = {names.get(name, name) for name in history.destroyed}
    sets = _sets(path)
    lasting = [
        replace(change, kid=kid)
        for change in history.changes
        for kid in sets.get(change.kid, (change.kid,))
        if names.get(kid) not in gone
    ]
    left_out = _kids(path, lambda row: row["state"] == State.PENDING)
    destroyed = _kids(path, lambda row: row["kid"] in gone)
    kept = {name: kid for name, kid in names.items() if kid not in left_out | destroyed}
    return Plan(
        path=path,
        contents=contents,
        left_out=left_out,
        destroyed=destroyed,
        revoked=frozenset(history.revoked),
        later=LaterChanges(lasting, names, {kids[0] for kids in sets.values()}),
        encryptions=int(age_seconds * FASTEST_A_SECOND) if encryptions is None else encryptions,
        counted=transfer.encryptions(url),
        used=_last_days(kept, history.used, transfer.days_of_use(url)),
        reseal=partial(resealed, token),
    )


def restore(chosen: Plan, url: str, *, force: bool) -> None:
    """Carry out a plan, wholly or not at all.

    Raises ``BackupError`` if the registry at ``url`` is not empty, unless ``force``.
    """
    if transfer.number_of_rows(url) and not force:
        raise BackupError("the registry is not empty: back it up, then add --force to replace it")
    migrate(url)
    transfer.replace_all(url, chosen.rows())


def _later(destroy_at: str | None, least: datetime) -> str | None:
    return destroy_at and max(datetime.fromisoformat(destroy_at), least).isoformat()


def _last_days(kept: Mapping[str, str], *known: Mapping[str, str]) -> Mapping[str, str]:
    """Return the latest day that is known of each key that is ``kept``, by either of its names."""
    last: dict[str, str] = {}
    for name, day in (item for days in known for item in days.items() if item[0] in kept):
        last[kept[name]] = max(day, last.get(kept[name], day))
    return last


def _names(path: Path) -> Mapping[str, str]:
    """Return the kids of the keys in a backup, by both of their names."""
    return {
        name: row["kid"]
        for table, row in backup.rows_of(path)
        if table == "keys"
        for name in (row["kid"], row["kid_public"])
        if name
    }


def _sets(path: Path) -> Mapping[str, Sequence[str]]:
    """Return under which kids the grants of each key set in a backup are: its own, and all of its.

    They are by the name that the key set has in changes.
    """
    names: dict[str, str] = {}
    kids: defaultdict[str, list[str]] = defaultdict(list)
    for table, row in backup.rows_of(path):
        if table == "keysets":
            names[row["id"]] = KeySetName.of(row["name"])
        elif table == "versions":
            kids[row["keyset"]].append(row["kid"])
    return {name: [keyset, *kids[keyset]] for keyset, name in names.items()}


def _kids(path: Path, is_meant: Callable[[transfer.Row], bool]) -> frozenset[str]:
    return frozenset(
        row["kid"] for table, row in backup.rows_of(path) if table == "keys" and is_meant(row)
    )
