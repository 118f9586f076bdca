"""First aid for SoftHSM's files, which nobody needs who has a real token.

Two accidents of SoftHSM 2.6.1, both from several processes sharing one directory:

* It truncates and rewrites ``token.object`` at every login. A process that is killed in between
  leaves it empty, and with it the whole token is lost for every new process.
* A process that stores an object takes the change counter of the token (the file ``generation``)
  for seen, and with it a change that another process has made meanwhile. It then overlooks the
  other's object until the counter changes again.
"""

import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hsm.errors import Cause, TokenUnavailable
from hsm.files import replace

logger = logging.getLogger(__name__)

_CONFIGURATIONS: Final = ("~/.config/softhsm2/softhsm2.conf", "/etc/softhsm/softhsm2.conf")
_TOKENDIR: Final = "directories.tokendir"
_COUNTER_BYTES: Final = 8


class FirstAid:
    """What helps a token of SoftHSM; with any other ``module`` it does nothing.

    ``copies`` is a directory for copies of ``token.object``.
    """

    def __init__(self, module: Path, copies: Path) -> None:
        self._is_needed = "softhsm" in module.name
        self._copies = copies

    def directory(self) -> Path | None:
        """Return where the tokens are, if it is known."""
        return next((token.parent for token in self._tokens()), None)

    def require_readable(self) -> None:
        """Raise ``TokenUnavailable`` for files that this user may not use: SoftHSM finds no token.

        Without an answer of ours it would say that there is none of that name.
        """
        try:
            for path in self._needed():
                (os.scandir if path.is_dir() else open)(path).close()
        except PermissionError as error:
            reason = f"the user of the service may not read {error.filename}"
            raise TokenUnavailable(reason, cause=Cause.PERMISSION) from error
        except OSError:
            return  # what else is wrong the library will say

    def restore(self) -> None:
        """Put back each ``token.object`` that is empty or gone; the caller holds the boot lock."""
        for token in self._tokens():
            copy, lost = self._copies / token.name, token / "token.object"
            with _optional():
                if copy.exists() and not (lost.exists() and lost.stat().st_size):
                    _copy(copy, lost)

    def save(self) -> None:
        """Copy each ``token.object``; the caller holds the boot lock and is logged in."""
        for token in self._tokens():
            original = token / "token.object"
            with _optional():
                if original.stat().st_size:
                    self._copies.mkdir(mode=0o700, exist_ok=True)
                    _copy(original, self._copies / token.name)

    def announce_change(self) -> None:
        """Count the change counter of each token on, so that all processes look at its files."""
        for token in self._tokens():
            with _optional(), (token / "generation").open("r+b") as counter:
                fcntl.lockf(counter, fcntl.LOCK_EX)
                count = int.from_bytes(counter.read(_COUNTER_BYTES)) + 1
                counter.seek(0)
                counter.write((count % (1 << 8 * _COUNTER_BYTES)).to_bytes(_COUNTER_BYTES))

    def _tokens(self) -> Iterator[Path]:
        """Give the directory of each token that SoftHSM would find."""
        tokens: list[Path] = []
        with _optional():  # there may be no file descriptor left to read it
            for configuration in self._configuration():
                for directory in _directories_of(configuration):
                    tokens.extend(path for path in directory.glob("*") if path.is_dir())
        yield from tokens

    def _needed(self) -> Iterator[Path]:
        """Give what has to be read, the outer before the inner."""
        for configuration in self._configuration():
            yield configuration
            yield from _directories_of(configuration)
        yield from self._tokens()

    def _configuration(self) -> list[Path]:
        """Return the file that SoftHSM reads, if there is one."""
        named = os.environ.get("SOFTHSM2_CONF")
        candidates = [Path(name).expanduser() for name in ([named] if named else _CONFIGURATIONS)]
        return [path for path in candidates if self._is_needed and path.is_file()][:1]


@contextmanager
def _optional() -> Iterator[None]:
    """Let what cannot be done undone: first aid must not be the cause of death."""
    try:
        yield
    except OSError as error:
        logger.warning("first aid for SoftHSM's files failed: %s", error)


def _copy(source: Path, target: Path) -> None:
    mode = stat.S_IMODE(source.stat().st_mode)
    replace(target, source.read_bytes(), mode=mode, synced=False)


def _directories_of(configuration: Path) -> Iterator[Path]:
    for line in os.fsdecode(configuration.read_bytes()).splitlines():
        name, _, value = line.partition("#")[0].partition("=")
        if name.strip() == _TOKENDIR:
            yield Path(value.strip())
