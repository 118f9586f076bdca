"""Being somebody who may not read everything, as root may."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_NOBODY: Final = 65534


@contextmanager
def nobody() -> Iterator[None]:
    """Be an account without rights for one ``with`` block; whoever is not root is one already."""
    if os.geteuid():
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def shared_directory() -> Iterator[Path]:
    """Make a directory for one ``with`` block that everybody may reach, as those of pytest not."""
    with tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory:
        path = Path(directory)
        path.chmod(0o777)
        yield path
