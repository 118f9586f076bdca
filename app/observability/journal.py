"""What systemd's journal wants to know of a line (sd-daemon(3)): how much it matters."""

import os
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

_STREAM: Final = "JOURNAL_STREAM"
"""Names the stream that the journal reads, as ``device:inode`` (systemd.exec(5))."""
_PRIORITIES: Final[Mapping[str, bytes]] = MappingProxyType(
    {
        "debug": b"<7>",
        "info": b"<6>",
        "warning": b"<4>",
        "error": b"<3>",
        "critical": b"<2>",
    }
)
PREFIX_BYTES: Final = 3


def priorities_of(fd: int) -> Mapping[str, bytes]:
    """Return what lines of each level begin with: nothing, if others than the journal read."""
    return _PRIORITIES if _is_journal(fd) else {}


def _is_journal(fd: int) -> bool:
    with suppress(OSError):  # it is not open
        stream = os.fstat(fd)
        return os.environ.get(_STREAM) == f"{stream.st_dev}:{stream.st_ino}"
    return False
