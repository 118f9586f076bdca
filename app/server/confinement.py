"""What every process of the service keeps to itself: its memory, and the files that it makes."""

import ctypes
import os
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4
_FOR_OTHERS: Final = 0o077


def confine() -> None:
    """Make files for their owner alone, and keep what is in memory out of the reach of others.

    There are no core dumps, and no debuggers of the same account, unless ``WORKER_DUMPS`` is 1.
    """
    os.umask(_FOR_OTHERS)
    if os.environ.get("WORKER_DUMPS") != "1":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
