"""What the threads and the processes of the service share of their memory, and what they keep."""

import ctypes
import gc
import os
from contextlib import suppress
from types import MappingProxyType
from typing import Final

_OPTIONS: Final = MappingProxyType(
    {"MALLOC_ARENA_MAX": -8, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_TRIM_THRESHOLD_": -1}
)
"""Of glibc: what an operator sets them by, and their numbers for ``mallopt``."""
_ARENAS: Final = 2
_LARGE_BYTES: Final = 128 * 1024
_LARGEST_KEPT_BYTES: Final = 32 * 1024 * 1024
_MOST_KEPT_BYTES: Final = 64 * 1024 * 1024
"""As much as glibc learns at most from what a program frees."""


def share_arenas() -> None:
    """Have all threads of this process, and of those that it forks, allocate from two arenas.

    glibc has up to eight for each processor, one for a thread, and each keeps what keys and rows
    have left free in it: a worker with sixteen threads grows by that many times what it needs.
    What is large they give back at once, until ``settle``. An environment variable
    ``MALLOC_ARENA_MAX`` is another number, and so on. Other C libraries have no arenas.
    """
    _set("MALLOC_ARENA_MAX", _ARENAS)
    _set("MALLOC_TRIM_THRESHOLD_", _LARGE_BYTES)  # else it follows the largest that was freed


def freeze() -> None:
    """Have the collectors of this process, and of those that it forks, leave what is there alone.

    They need not look through it at every few requests. Those of the others would write into each
    object of it, and so have a page of their own for each.
    """
    gc.collect()
    gc.freeze()


def settle() -> None:
    """Give back what only the start has needed, and keep what is free from now on.

    To see how long a message may be, a worker makes the longest, a dozen times its length: most
    never meet another. One that does should not ask the system for each page of it anew.
    """
    freeze()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    _set("MALLOC_MMAP_THRESHOLD_", _LARGEST_KEPT_BYTES)
    _set("MALLOC_TRIM_THRESHOLD_", _MOST_KEPT_BYTES)


def _set(option: str, value: int) -> None:
    if option not in os.environ:
        with suppress(AttributeError):
            ctypes.CDLL(None).mallopt(_OPTIONS[option], value)
