"""Metrics of several processes as one: where they are kept, and what a worker's end changes.

All that reaches into prometheus_client is here.
"""

import hashlib
import os
import shutil
import tempfile
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Final

from prometheus_client import Histogram, Metric, multiprocess, values
from prometheus_client.registry import Collector

_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
_SLOT: Final = "WORKER_SLOT"
_STARTED: Final = "SERVICE_STARTED"
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # the directory made in it is private


def prepare(state_dir: Path) -> None:
    """Make the directory of the metrics; call in the master, before there are workers.

    It is in memory where possible, and 0700. Those of masters that were killed go.
    """
    parent = Path(memory() or state_dir)
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:16]
    prefix = f"jose-hsm-figures-{os.getuid()}-{place}-"
    for old in parent.glob(f"{prefix}*"):
        if not _is_alive(old.name.removeprefix(prefix).partition("-")[0]):
            shutil.rmtree(old, ignore_errors=True)
    os.environ[_STARTED] = str(time.time())
    os.environ[_DIRECTORY] = tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent)


def renew() -> None:
    """Make the directory again if somebody has removed it; call in the master before each fork.

    Some systems empty the memory of a user who has no session any more.
    """
    directory = Path(os.environ[_DIRECTORY])
    try:
        _make(directory)
    except PermissionError:
        os.environ[_DIRECTORY] = tempfile.mkdtemp(prefix=f"{directory.name}-", dir=directory.parent)


def _make(directory: Path) -> None:
    """Make it unless it is there; raise ``PermissionError`` if somebody else has made it."""
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    if directory.lstat().st_uid != os.geteuid():
        raise PermissionError(directory)


def memory() -> str | None:
    """Return the directory whose files are in memory, if there is one that we may write to."""
    may_write = os.access(_MEMORY, os.W_OK | os.X_OK, effective_ids=True)
    return str(_MEMORY) if may_write else None


def remove() -> None:
    """Remove the directory; call in the master at its end."""
    shutil.rmtree(os.environ.pop(_DIRECTORY, ""), ignore_errors=True)


def worker_ended(slot: object) -> None:
    """Drop what was true only while the worker of ``slot`` lived; call in the master."""
    if directory := shared_directory():
        multiprocess.mark_process_dead(slot, directory)  # type: ignore[no-untyped-call]  # it is not


def started_at() -> float:
    """Return when the master began, in seconds since the epoch; without one it is now."""
    return float(os.environ.get(_STARTED, time.time()))


def shared_directory() -> str | None:
    """Return where the processes of a master keep what they share; ``None`` without a master."""
    return os.environ.get(_DIRECTORY)


class Together(Collector):
    """The metrics that the processes of ``directory`` have counted together."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """Return them as they are now."""
        return metrics_of(self._directory, "*")


def mark_of(directory: str, kind: str) -> bytes:
    """Return what is another as soon as a metric of the kind has changed; it costs little."""
    digest = hashlib.blake2b()
    for path in sorted(_files_of(directory, kind)):
        digest.update(path.read_bytes())
    return digest.digest()


def metrics_of(directory: str, kind: str) -> Iterable[Metric]:
    """Return those of one kind, such as "counter"; the files of the others are not read."""
    files = [str(path) for path in _files_of(directory, kind)]
    merged: Iterable[Metric] = multiprocess.MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]  # it is not
    return merged


def _files_of(directory: str, kind: str) -> Iterable[Path]:
    return filter(_has_begun, Path(directory).glob(f"{kind}_*.db"))


def _has_begun(path: Path) -> bool:
    """Tell whether a file has its first size: for a moment after it is made it is empty."""
    with suppress(FileNotFoundError):  # that of a worker that has just ended
        return path.stat().st_size > 0
    return False


def observe_all(histogram: Histogram, amounts: Sequence[float]) -> None:
    """Observe all of ``amounts``: many cost little more than one."""
    histogram._sum.inc(sum(amounts))  # noqa: SLF001  # as ``observe`` does with each
    bounds, buckets = histogram._upper_bounds, histogram._buckets  # noqa: SLF001  # as above
    for place, number in Counter(bisect_left(bounds, amount) for amount in amounts).items():
        buckets[place].inc(number)


def _is_alive(pid: str) -> bool:
    return pid.isdigit() and Path(f"/proc/{pid}").exists()


class Buffer:
    """Values that this process has counted and not yet written to the file that others read.

    That file is a mapping which costs more to change than all else that is done to count.
    """

    def __init__(self) -> None:
        self.lock: Final = Lock()
        self.values: Final[list[Value]] = []
        self.changed: Final[set[Value]] = set()

    def take_over(self) -> None:
        """Have all values made from now on be counted here. Call after fork, never before."""
        # A worker's successor goes on in its slot, so that files do not get more and more.
        slot = os.environ.get(_SLOT) or str(os.getpid())
        self.stored_class = values.MultiProcessValue(  # type: ignore[no-untyped-call]  # it is not
            process_identifier=lambda: slot
        )
        self._file = Path(os.environ[_DIRECTORY], f"counter_{slot}.db")

        class BufferedValue(Value):
            buffer = self

        values.ValueClass = BufferedValue

    def flush(self) -> None:
        """Write what has been counted; all of it, if somebody has removed the files."""
        with self.lock, suppress(ValueError):  # a file that is closed
            if self.values and not self._file.exists():
                self._restore()
            while self.changed:
                self.changed.pop().flush()

    def _restore(self) -> None:
        _make(self._file.parent)
        self.stored_class.close_all_files()
        for value in self.values:
            value.restore()


class Value:
    """One sample in a ``buffer``; the interface is that of prometheus_client.values."""

    buffer: ClassVar[Buffer]
    _multiprocess = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Begin with what the file has of it, if there is one."""
        self._make = partial(self.buffer.stored_class, *args, **kwargs)
        self._pending = 0.0
        with self.buffer.lock:
            self._stored = self._make()
            self.buffer.values.append(self)

    def inc(self, amount: float) -> None:
        """Count."""
        with self.buffer.lock:
            self.buffer.changed.add(self)
            self._pending += amount

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Write it at once, if it is another."""
        with self.buffer.lock:
            if timestamp is not None or value != self._stored.get():
                self._stored.set(value, timestamp)

    def get(self) -> float:
        """Return it as it is now."""
        return float(self._stored.get()) + self._pending

    def set_exemplar(self, _exemplar: Any) -> None:
        """None are kept."""

    def get_exemplar(self) -> None:
        """None are kept."""

    def flush(self) -> None:
        """Write what has been counted; to be called with the lock."""
        pending, self._pending = self._pending, 0.0
        if pending:
            self._stored.inc(pending)

    def restore(self) -> None:
        """Write it into a new file; to be called with the lock."""
        stored = self._stored.get()
        self._stored = self._make()
        self._stored.set(stored)
