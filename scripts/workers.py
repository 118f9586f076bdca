"""The workers of a server that live, and their death."""

import os
import signal
from contextlib import suppress
from pathlib import Path


def workers_of(master: int) -> list[int]:
    """Return the process ids of the workers of ``master`` that live now.

    One that has ended is listed by the kernel until the master has seen it, and is none of them. A
    master that has ended has none.
    """
    with suppress(FileNotFoundError, ProcessLookupError):
        children = Path(f"/proc/{master}/task/{master}/children").read_text("ascii")
        return [pid for pid in map(int, children.split()) if not is_gone(pid)]
    return []


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended, be it that nobody has taken its status yet."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] in "ZX"
    return True


def kill(pid: int) -> bool:
    """Send SIGKILL; tell whether anybody was there to get it."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False
