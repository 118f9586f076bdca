"""Backups of the registry: lines of JSON, compressed, with a digest at the end.

The first line says what the file is, each line after it is a row, the last counts the lines before
it, has their SHA-256, and the MAC of that under a key of the token. So a file is of no database in
particular, is whole or refused, and was written by somebody who can use the token.
"""

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from app import compact_json
from app.operator.errors import BackupError
from app.registry import Age, revision_at
from app.registry.transfer import TableRow, snapshot
from hsm import replacing

FORMAT: Final = "jose-hsm registry 2"
_BEFORE: Final = "jose-hsm registry 1"  # without a MAC

Mac = Callable[[bytes], bytes]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is in a backup: rows by table, of a registry at ``taken_at`` with ``revision``.

    ``mac`` is that of the 32 bytes of ``sha256``, if there is one.
    """

    revision: str
    taken_at: datetime
    rows: Counter[str]
    sha256: str
    mac: bytes | None

    @property
    def digest(self) -> bytes:
        """What the MAC is of."""
        return bytes.fromhex(self.sha256)


def write(path: Path, url: str, *, mac: Mac | None, force: bool = False) -> Contents:
    """Write the registry at ``url`` as it is at one instant, while others use it.

    ``mac`` computes the MAC of a digest. The file is there whole or not at all, for its owner
    alone. Raises ``BackupError`` if there is one already, unless ``force``, or if it cannot be
    written.
    """
    if path.exists() and not force:
        raise BackupError(f"{path} exists: choose another name, or add --force")
    age = revision_at(url).age
    if age not in {Age.CURRENT, Age.OLD}:
        raise BackupError(f"there is no registry that this version knows: its schema is {age}")
    try:
        with replacing(path, synced=True) as file, snapshot(url) as (revision, rows):
            return _write(file, revision, rows, mac)
    except OSError as error:
        raise BackupError(f"{path} cannot be written: {error.strerror}") from error


def _write(file: IO[bytes], revision: str, rows: Iterator[TableRow], mac: Mac | None) -> Contents:
    hashed, counted = hashlib.sha256(), Counter[str]()
    taken_at = datetime.now(UTC)
    with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:

        def put(value: Any) -> None:
            line = compact_json.dumps(value).encode("ascii") + b"\n"
            hashed.update(line)
            packed.write(line)

        put({"format": FORMAT, "revision": revision, "taken_at": taken_at.isoformat()})
        for table, row in rows:
            put([table, row])
            counted[table] += 1
        sha256, code = hashed.hexdigest(), mac(hashed.digest()) if mac else None
        marked = {"mac": code.hex()} if code else {}
        put({"rows": counted.total(), "sha256": sha256} | marked)
    return Contents(revision=revision, taken_at=taken_at, rows=counted, sha256=sha256, mac=code)


def read(path: Path) -> Contents:
    """Read a backup to its end; raise ``BackupError`` unless it is one, whole and unchanged."""
    hashed, counted, end = hashlib.sha256(), Counter[str](), None
    with _lines(path) as lines:
        first = next(lines, b"")
        head = _parsed(first)
        if not isinstance(head, dict) or head.get("format") not in {FORMAT, _BEFORE}:
            raise BackupError(f"{path} is no backup of jose-hsm, or one of a newer version")
        hashed.update(first)
        for line in lines:
            match _parsed(line):
                case [str(table), dict()]:
                    counted[table] += 1
                    hashed.update(line)
                case end:
                    break
        is_last = next(lines, None) is None
    mac = end.pop("mac", "") if isinstance(end, dict) else ""
    if end != {"rows": counted.total(), "sha256": hashed.hexdigest()} or not is_last:
        raise BackupError(f"{path} is damaged: it is not what was written")
    return Contents(
        revision=head["revision"],
        taken_at=datetime.fromisoformat(head["taken_at"]),
        rows=counted,
        sha256=hashed.hexdigest(),
        mac=_bytes_of(mac),
    )


def rows_of(path: Path) -> Iterator[TableRow]:
    """Give the rows of a backup that has been read to its end."""
    with _lines(path) as lines:
        for value in map(json.loads, lines):
            if isinstance(value, list):
                table, row = value
                yield table, row


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[bytes]]:
    try:
        with gzip.open(path, "rb") as file:
            yield iter(file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BackupError(f"{path} is no backup, or is damaged: {error}") from error
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror}") from error


def _bytes_of(text: Any) -> bytes | None:
    with suppress(ValueError, TypeError):
        return bytes.fromhex(text) or None
    return None


def _parsed(line: bytes) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(line)
    return None
