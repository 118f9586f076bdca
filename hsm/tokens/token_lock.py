"""A lock for tokens that go wrong if several callers use them at a time.

* openCryptoki before 3.14 confuses its objects. Its lists of them, in the memory of each process,
  in that which processes share, and in files, change one after the other, and its lock lets the
  threads of a process pass. So while one caller makes or destroys a key, another may find that a
  third key is gone, or that the handle of one names another. Its commit e963ae41 mends that.
* NSS has its objects in files of SQLite. Two processes that destroy keys hold each other up for
  more than ten seconds, and with them all threads that sign.
"""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Final

from hsm.cryptoki.module import Product
from hsm.files import file_lock

_NO_LOCK: Final = nullcontext()
_ALWAYS: Final = (0, 0)
_NEVER: Final = (256, 0)
"""No CK_VERSION is as high."""
_MENDED: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {"opencryptoki": (3, 14), "softokn": _NEVER}
)
"""In which version of a library, by a part of its file's name, several may use its token."""


class TokenLock:
    """Has the processes of a host use their token one at a time, if it is one that needs that.

    ``module`` is the library; before it has said its version, it needs that by its name. ``path``
    is a file of the host.
    """

    def __init__(self, module: Path, path: Path) -> None:
        self._path = path
        self._mended = next((_MENDED[name] for name in _MENDED if name in module.name), _ALWAYS)
        self._is_needed = self._mended > _ALWAYS

    def learn(self, product: Product) -> None:
        """Decide by what the library says of itself."""
        if found := re.fullmatch(r"(\d+)\.(\d+)", product.library_version):
            self._is_needed = (int(found[1]), int(found[2])) < self._mended

    def held(self, wait_seconds: float | None = None) -> AbstractContextManager[None]:
        """Use the token alone for one ``with`` block; like ``file_lock``."""
        if self._is_needed:
            return file_lock(self._path, wait_seconds=wait_seconds)
        return _NO_LOCK
