"""Results of the boot proof, shared by the processes of a service: only the first one tries."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final

from pkcs11 import Token

from hsm.cryptoki.module import serial_of
from hsm.files import file_lock, replace
from hsm.life.refusal import Refusal
from hsm.waiting import Resting, alone

_VALID_SECONDS: Final = 3600.0


class ProofCache:
    """Why the token does not do what was tried, by the name of the trial; ``None`` if it does.

    They are kept in ``directory``, which lives as long as the service whose processes share it,
    and believed for an hour of the same token with the same mechanism list. Without a
    ``directory`` a process is on its own. ``details`` are those of what it has tried itself.
    Whoever waits for others to try waits ``resting``.
    """

    def __init__(
        self,
        directory: Path | None,
        token: Token,
        parameters: str | None = None,
        resting: Resting = nullcontext,
    ) -> None:
        self._path = directory and directory / f"proofs-{_identity(token, parameters)}.json"
        self._resting = resting
        self._known: dict[str, str | None] = {}
        self.details: dict[str, str] = {}

    @contextmanager
    def shared(self, *, believe: bool) -> Iterator[None]:
        """Begin with what others have found, if it is believed; let others have what is found.

        Whoever comes meanwhile waits: to try all takes the processor for most of a second.
        """
        if self._path is None or not self._path.parent.is_dir():
            yield
            return
        with alone(file_lock(self._path.with_suffix(".lock")), self._resting):
            if believe:
                self._known = _read(self._path)
            number = len(self._known)
            yield
            if len(self._known) > number:
                _write(self._path, self._known)

    def of(self, name: str, trial: Callable[[], str | None]) -> str | None:
        """Return what is known of ``name``, or what ``trial`` finds."""
        if name not in self._known:
            self._known[name] = trial()
        return self._known[name]

    def refusal(self, name: str, trial: Callable[[], Refusal | None]) -> str | None:
        """Return the reason that is known against ``name``, or what ``trial`` finds."""
        return self.of(name, lambda: self._noted(name, trial()))

    def _noted(self, name: str, refusal: Refusal | None) -> str | None:
        if refusal is None:
            return None
        self.details[name] = refusal.details
        return refusal.reason


def _read(path: Path) -> dict[str, str | None]:
    with suppress(OSError, ValueError):
        if time.time() - path.stat().st_mtime < _VALID_SECONDS:
            return dict(json.loads(path.read_bytes()))
    return {}


def _write(path: Path, known: Mapping[str, str | None]) -> None:
    with suppress(OSError):  # the next one tries for itself
        replace(path, json.dumps(known).encode("ascii"), synced=False)


def _identity(token: Token, parameters: str | None) -> str:
    """Return a name of the token, its versions, and what it says of its mechanisms."""
    serial = serial_of(token, parameters)
    versions = token.hardware_version, token.firmware_version
    mechanisms = sorted(map(int, token.slot.get_mechanisms()))
    identity = serial, token.manufacturer_id, token.model, versions, mechanisms
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
