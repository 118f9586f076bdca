"""First aid for SoftHSM's files, which nobody needs who has a real token.

SoftHSM 2.6 truncates and rewrites ``token.object`` at every login. A process that is killed in
between leaves it empty, and with it the whole token is lost for every new process.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CONFIGURATIONS: Final = ("~/.config/softhsm2/softhsm2.conf", "/etc/softhsm/softhsm2.conf")
_TOKENDIR: Final = "directories.tokendir"


def is_softhsm(module: Path) -> bool:
    """Tell whether ``module`` is SoftHSM, by its file name."""
    return "softhsm" in module.name


def restore(copies: Path) -> None:
    """Put back each ``token.object`` that is empty or gone; the caller holds the boot lock."""
    for token in _tokens():
        copy, lost = copies / token.name, token / "token.object"
        if copy.exists() and not (lost.exists() and lost.stat().st_size):
            _copy(copy, lost)


def save(copies: Path) -> None:
    """Copy each ``token.object`` to ``copies``; the caller holds the boot lock and is logged in."""
    copies.mkdir(mode=0o700, exist_ok=True)
    for token in _tokens():
        original, copy = token / "token.object", copies / token.name
        if original.exists() and original.stat().st_size:
            _copy(original, copy)


def _copy(source: Path, target: Path) -> None:
    """Replace ``target``, whole or not at all."""
    partial = target.with_name(f"{target.name}.new")
    shutil.copy(source, partial)
    partial.replace(target)


def _tokens() -> Iterator[Path]:
    """Give the directory of each token that SoftHSM would find."""
    named = os.environ.get("SOFTHSM2_CONF")
    for name in [named] if named else _CONFIGURATIONS:
        path = Path(name).expanduser()
        if path.is_file():
            yield from _tokens_of(path)
            return


def _tokens_of(configuration: Path) -> Iterator[Path]:
    for line in configuration.read_text("utf-8").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == _TOKENDIR:
            yield from (path for path in Path(value.strip()).glob("*") if path.is_dir())
