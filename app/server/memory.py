"""What the threads and the processes of the service share of their memory."""

import ctypes
import gc
import os
from contextlib import suppress
from typing import Final

_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2


def share_arenas() -> None:
    """Have all threads of this process, and of those that it forks, allocate from two arenas.

    glibc has up to eight for each processor, one for a thread, and each keeps what keys and rows
    have left free in it: a worker with sixteen threads grows by that many times what it needs.
    ``MALLOC_ARENA_MAX`` is another number. Other C libraries have no arenas.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def share_imports() -> None:
    """Have the processes that this one forks leave what it has imported where it is.

    Their collectors would write into each object of it, and so have a page of their own for each.
    """
    gc.collect()
    gc.freeze()
