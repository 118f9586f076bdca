"""What the figures were taken on."""

import os
import platform
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("gunicorn", "flask", "marshmallow", "SQLAlchemy", "python-pkcs11")


def describe() -> dict[str, str]:
    """Return the machine, the versions and the day."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "SoftHSM": _first_line("softhsm2-util", "--version"),
        "wrk": _first_line("wrk", "-v").partition("[")[0].removeprefix("wrk").strip(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    return next(_processor_names(), platform.machine())


def _processor_names() -> Iterator[str]:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            yield value.strip()


def _first_line(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return (done.stdout or done.stderr).partition("\n")[0].strip()
