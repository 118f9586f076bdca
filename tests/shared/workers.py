"""The workers of a service that live, and their death."""

import contextlib
import os
import signal
from pathlib import Path

from tests.shared.waiting import until


def workers_of(master: int) -> list[int]:
    """Return the process ids of the workers of ``master`` that live now.

    One that has ended is listed by the kernel until the master has seen it, and is none of them.
    """
    children = Path(f"/proc/{master}/task/{master}/children").read_text("ascii")
    return [pid for pid in map(int, children.split()) if not is_gone(pid)]


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended, be it that nobody has taken its status yet."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "Z"
    return True


def kill_a_worker(master: int) -> int:
    """End one worker of ``master`` that lives, as soon as there is one; return its process id."""
    return until(lambda: next(filter(_has_killed, workers_of(master)), None))


def _has_killed(pid: int) -> bool:
    """Send SIGKILL; tell whether anybody was there to get it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False
