"""The software token of openCryptoki.

Its paths are compiled in, so a machine has one openCryptoki, with one daemon. A process that makes
tokens gets one of its own, in namespaces of its own of mounts and of shared memory: it, and what it
starts afterwards, finds its tokens there, and neither those of the machine nor those of others.
"""

import atexit
import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from scripts.tokens.make import (
    GCM,
    HISTORY,
    KEY_MANAGEMENT,
    ML_DSA,
    WRAPPED_IMPORTS,
    SoftwareToken,
    run,
    start,
)

_DATA: Final = Path("/var/lib/opencryptoki")
_LOCKS: Final = Path("/run/lock/opencryptoki")
_CONFIGURATION: Final = Path("/etc/opencryptoki/opencryptoki.conf")
_LOG: Final = Path("/var/log/opencryptoki")
_SOCKET: Final = Path("/run/pkcsslotd.socket")
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # where POSIX shared memory is
_COVERED: Final = (_DATA, _CONFIGURATION.parent, Path("/run"), Path("/var/log"))
_SLOTS: Final = 8  # that one process can fill
_MOUNTS_AND_SHARED_MEMORY: Final = 0x00020000 | 0x08000000  # CLONE_NEWNS, CLONE_NEWIPC
_FIRST_PIN: Final = "87654321"  # of the security officer


class OpenCryptoki(SoftwareToken):
    """The software token of openCryptoki, as Debian and Ubuntu have it."""

    has_daemons = True
    pin_bytes = 4
    lacks = frozenset(
        {
            *("CKA_ALLOWED_MECHANISMS", "CKA_COPYABLE"),
            *("ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519", "Ed448", *ML_DSA),
            *(*GCM, *KEY_MANAGEMENT, *HISTORY, WRAPPED_IMPORTS),
        }
    )

    def needs(self) -> str | None:
        """See ``SoftwareToken``."""
        if not (shutil.which("pkcsslotd") and _libraries()):
            return "opencryptoki"
        probe = ["unshare", "--mount", "--ipc", "true"]
        if os.geteuid() or subprocess.run(probe, capture_output=True, check=False).returncode:
            return "root, who may make namespaces of mounts and of shared memory"
        return None

    def make(self, state_dir: Path, pin: str) -> dict[str, str]:
        """See ``SoftwareToken``."""
        (_files(state_dir) / "TOK_OBJ").mkdir(parents=True)
        slot = _fill(state_dir)
        label = f"throwaway-{slot}"
        command = ["pkcsconf", "-c", str(slot)]
        run([*command, "-I", "-S", _FIRST_PIN], typed=f"{label}\n")
        run([*command, "-P", "-S", _FIRST_PIN, "-n", pin])
        run([*command, "-u", "-S", pin, "-n", pin])
        return {
            "JOSE_HSM_PKCS11_MODULE": str(_libraries()[0]),
            "JOSE_HSM_TOKEN_LABEL": label,
        }

    def serve(self, state_dir: Path) -> None:
        """See ``SoftwareToken``."""
        _fill(state_dir)


def _files(state_dir: Path) -> Path:
    return state_dir / "opencryptoki"


def _libraries() -> list[Path]:
    return [*Path("/usr/lib").glob("*/opencryptoki/libopencryptoki.so.0")]


def _fill(state_dir: Path) -> int:
    """Have the files of a token be those of the next slot; return its number."""
    number, name = next(_slots())
    run(["mount", "--bind", str(_files(state_dir)), str(_DATA / name)])
    return number


@cache
def _slots() -> Iterator[tuple[int, str]]:
    """Enter namespaces of this process, and start the daemon; give the slots of it."""
    prefix = f"jose-hsm-{secrets.token_hex(4)}"  # shared memory is named by it
    names = [f"{prefix}-{number}" for number in range(_SLOTS)]
    _enter_namespaces()
    for directory in _COVERED:
        run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(directory)])
    _write_configuration(names)
    atexit.register(_forget, names)
    start(["pkcsslotd", "-f"], _SOCKET.exists)
    return iter([*enumerate(names)])


def _enter_namespaces() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_MOUNTS_AND_SHARED_MEMORY):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")
    run(["mount", "--make-rprivate", "/"])


def _write_configuration(names: list[str]) -> None:
    for directory in (_LOG, *(_LOCKS / name for name in names), *(_DATA / name for name in names)):
        directory.mkdir(parents=True)
    slots = [
        f"slot {number}\n{{\nstdll = libpkcs11_sw.so\ntokname = {name}\n}}\n"
        for number, name in enumerate(names)
    ]
    _CONFIGURATION.write_text("version opencryptoki-3.1\n" + "".join(slots))


def _forget(names: list[str]) -> None:
    """Remove the shared memory, which is named after the files."""
    for name in names:
        (_MEMORY / f"var.lib.opencryptoki.{name}").unlink(missing_ok=True)
