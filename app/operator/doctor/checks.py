"""Looks at what is not the token: files, disks, the registry, the clock."""

import grp
import os
import pwd
import stat
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from app.config import Config
from app.errors import RegistryUnavailable
from app.registry import Age, Registry, revision_at
from app.settings import ConfigError
from hsm import Finding

_LEAST_FREE_BYTES: Final = 2**20
_LOW_FREE_BYTES: Final = 2**26
_SKEW_SECONDS: Final = 60.0
_LEAP_SECONDS: Final = 1.0
_AT_ONCE_SECONDS: Final = 0.1


def user() -> str:
    """Return who this process is."""
    return _user_of(os.geteuid())


def state_dir(config: Config) -> Finding:
    """See whether the directory is there, and ours alone."""
    path = config.state_dir
    try:
        found = path.stat()
    except PermissionError:
        return Finding("out_of_reach")
    except OSError:
        return Finding("missing")
    if not stat.S_ISDIR(found.st_mode):
        return Finding("missing")
    facts = {"owner": _user_of(found.st_uid), "mode": f"{stat.S_IMODE(found.st_mode):04o}"}
    if found.st_uid != os.geteuid():
        return Finding("not_ours", facts)
    if not _may(path, os.W_OK | os.X_OK):
        return Finding("not_writable", facts)
    return Finding("open" if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else "", facts)


def disk(path: Path | None) -> Finding:
    """See how much room there is where ``path`` is."""
    if path is None:
        return Finding("unknown")
    try:
        found = os.statvfs(path)
    except OSError:
        return Finding("unknown")
    free = found.f_bavail * found.f_frsize
    facts = {"path": str(path), "free_mib": free // 2**20, "free_kib": free // 2**10}
    if free < _LEAST_FREE_BYTES or (found.f_files and not found.f_favail):
        return Finding("full", facts)
    return Finding("low" if free < _LOW_FREE_BYTES else "", facts)


def pin_file(config: Config) -> Finding:
    """See whether there is a PIN."""
    if config.pin_file is None:
        return Finding("environment")
    try:
        return Finding("" if config.read_pin() else "empty")
    except (FileNotFoundError, NotADirectoryError):
        return Finding("missing")
    except (IsADirectoryError, UnicodeDecodeError):
        return Finding("empty")
    except OSError:
        return Finding("unreadable")


def pin_mode(config: Config) -> Finding:
    """See who else can read or change the PIN."""
    if config.pin_file is None:
        return Finding("unknown")
    found = config.pin_file.stat()
    facts = {
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "owner": _user_of(found.st_uid),
        "group": _group_of(found.st_gid),
    }
    if found.st_mode & stat.S_IRWXO:
        return Finding("world", facts)
    if found.st_mode & stat.S_IRWXG:
        return Finding("group", facts)
    return Finding("" if found.st_uid in {0, os.geteuid()} else "owner", facts)


def registry(config: Config) -> Finding:
    """See whether the registry answers, and whether its schema is the one of this version."""
    try:
        revision = revision_at(config.registry_url)
        facts: dict[str, Any] = {"found": revision.found, "newest": revision.newest}
        if revision.age is not Age.CURRENT:
            return Finding(str(revision.age), facts)
        return Finding(facts=facts | {"keys": _registry(config).census.tallies.total()})
    except RegistryUnavailable as error:
        return Finding(str(error.cause))
    except ConfigError as error:
        return Finding("setting", {"reason": str(error)})


def identity(config: Config) -> str:
    """Return what registry this is."""
    return _registry(config).identity()


def audit_log(config: Config) -> Finding:
    """See whether the audit log can be written, and write nothing."""
    path = config.audit_path
    if path is None:
        return Finding("off")
    beside = path.with_name(f"{path.name}.lock")
    is_writable = all(
        _may(each, os.W_OK) if _may(each, os.F_OK) else _may(path.parent, os.W_OK | os.X_OK)
        for each in (path, beside)
    )
    is_file = is_writable and not path.is_dir()
    return Finding("" if is_file else "not_writable", {"path": str(path)})


class Clock:
    """Compares the clock with all else that tells the time; begins with its making."""

    def __init__(self) -> None:
        self._begun = _ahead_seconds()

    def look(self, config: Config, token: datetime | None, *, has_registry: bool) -> Finding:
        """See whether the clock is behind what has happened, was set, or differs from the token."""
        now = time.time()
        facts: dict[str, Any] = {"now": _shown(now)}
        for what, then in _events(config, has_registry=has_registry):
            if now < then - _SKEW_SECONDS:
                return Finding("behind", facts | {"what": what, "then": _shown(then)})
        leap = _ahead_seconds() - self._begun
        if abs(leap) > _LEAP_SECONDS:
            return Finding("set", facts | {"seconds": round(leap, 1)})
        if token and abs(token.timestamp() - now) > _SKEW_SECONDS:
            return Finding("token", facts | {"seconds": round(token.timestamp() - now)})
        return Finding(facts=facts)


def _ahead_seconds() -> float:
    """Return how far the clock is ahead of one that is never set, both read at once."""
    while True:
        before, now, after = time.monotonic(), time.time(), time.monotonic()
        if after - before < _AT_ONCE_SECONDS:  # else this process stood still between them
            return now - after


def _events(config: Config, *, has_registry: bool) -> list[tuple[str, float]]:
    """Return what has happened already, and when."""
    events = [("this program was installed", Path(__file__).stat().st_mtime)]
    if config.audit_path:
        with suppress(OSError):
            events.append(("the audit log was written", config.audit_path.stat().st_mtime))
    if has_registry:
        with suppress(RegistryUnavailable):
            changed_at = _registry(config).last_change()
            if changed_at:
                events.append(("a key was changed", changed_at.timestamp()))
    return events


def _registry(config: Config) -> Registry:
    """Return the registry, for reading: it needs no name of the host."""
    return Registry(config.registry_url, host="")


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=True)


def _shown(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).isoformat(timespec="seconds")


def _user_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_of(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
