"""The API token of a caller, which is in a file: what is typed is seen by others."""

import os
import stat
from pathlib import Path
from typing import Final

from app.terminal.failure import CommandFailed

_FOR_OTHERS: Final = 0o077


def read_token(path: Path) -> str:
    """Return the API token; raise ``CommandFailed`` if it cannot be read, or others can read it.

    A pipe, as a shell makes it of ``<(command)``, has no mode that says anything.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            octets = file.read()
    except OSError as error:
        raise CommandFailed(f"{path} cannot be read: {error.strerror}") from None
    if stat.S_ISREG(mode) and mode & _FOR_OTHERS:
        raise CommandFailed(f"others can read {path}: chmod 600 {path}")
    return _token(path, octets)


def _token(path: Path, octets: bytes) -> str:
    text = octets.strip().decode("latin-1")
    if not (text.isascii() and text.isprintable()) or " " in text or not text:
        raise CommandFailed(f"{path} holds no API token")
    return text
