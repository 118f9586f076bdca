"""How large the workers are."""

import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.faults.service import Service


class Size(NamedTuple):
    """The largest of the workers, by each measure."""

    memory_mib: float
    descriptors: int
    threads: int


def size_of(service: Service) -> Size:
    """Measure them."""
    sizes = []
    for pid in service.workers:
        with suppress(OSError):  # it ends just now
            process = Path(f"/proc/{pid}")
            status = (process / "status").read_text()
            resident = int(_number_of("VmRSS", status)) / 1024
            descriptors = len(list((process / "fd").iterdir()))
            sizes.append((resident, descriptors, int(_number_of("Threads", status))))
    return Size(*map(max, zip(*sizes, strict=True)))


def _number_of(name: str, status: str) -> str:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    return found[1] if found else "0"
