"""The name of a host, as registries and locks know hosts."""

from pathlib import Path
from uuid import uuid4

import hsm


def host_name(state_dir: Path) -> str:
    """Return a random name of those who share ``state_dir``, kept there."""
    path = state_dir / "host"
    if not path.exists():
        with hsm.file_lock(path.with_name("host.lock")):  # only once
            if not path.exists():
                hsm.replace(path, f"{uuid4()}\n".encode("ascii"), synced=True)
    return path.read_text("ascii").strip()
