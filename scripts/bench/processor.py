"""What the workers of a server use of the processor, whatever else the machine does."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from scripts.workers import workers_of


def used_seconds(master: int) -> float:
    """Return the time that the threads of all workers of the process ``master`` have computed."""
    return sum(map(_computed_nanoseconds, _threads(master))) / 1e9


def _threads(master: int) -> Iterator[Path]:
    for worker in workers_of(master):
        with suppress(FileNotFoundError):  # it has just ended
            yield from Path(f"/proc/{worker}/task").iterdir()


def _computed_nanoseconds(thread: Path) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        return int((thread / "schedstat").read_text("ascii").split()[0])
    return 0
