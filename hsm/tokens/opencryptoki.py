"""A lock for openCryptoki before 3.14, which confuses its objects if it is used by several at once.

Its lists of objects, in the memory of each process, in that which processes share, and in files,
change one after the other, and its lock lets the threads of a process pass. So while one caller
makes or destroys a key, another may find that a third key is gone, or that the handle of one names
another. Its commit e963ae41 mends that.
"""

import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from hsm.cryptoki.module import Product
from hsm.files import file_lock

_MENDED: Final = (3, 14)


class TokenLock:
    """Has the processes of a host use their token one at a time, if it is one that needs that.

    ``module`` is the library; before it has said its version, it needs that by its name. ``path``
    is a file of the host.
    """

    def __init__(self, module: Path, path: Path) -> None:
        self._path = path
        self._is_needed = "opencryptoki" in module.name

    def learn(self, product: Product) -> None:
        """Decide by what the library says of itself."""
        found = re.fullmatch(r"(\d+)\.(\d+)", product.library_version)
        version = (int(found[1]), int(found[2])) if found else _MENDED
        self._is_needed &= version < _MENDED

    def held(self, wait_seconds: float | None = None) -> AbstractContextManager[None]:
        """Use the token alone for one ``with`` block; like ``file_lock``."""
        if self._is_needed:
            return file_lock(self._path, wait_seconds=wait_seconds)
        return nullcontext()
