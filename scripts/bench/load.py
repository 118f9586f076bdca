"""Load from wrk: so many connections, each sending its next request when the last is answered."""

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

_SCRIPT: Final = Path(__file__).with_name("load.lua")
_LOOK_SECONDS: Final = 0.1
_IDLE_SHARE: Final = 0.1


class Slice(NamedTuple):
    """What one run of wrk saw; latencies in microseconds."""

    requests: int
    seconds: float
    refused: int
    broken: int
    p50: float
    p95: float
    p99: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Requests answered with 2xx in a second."""
        return (self.requests - self.refused) / self.seconds


class Metrics(NamedTuple):
    """Several slices together: of the rate the mean, of each percentile the median."""

    per_second: float
    p50_us: float
    p95_us: float
    p99_us: float
    cpu_us: float
    """What a request costs the workers of processor time."""
    requests: int
    errors: int

    @classmethod
    def of(cls, slices: Sequence[Slice]) -> Self:
        """Return the figures of at least one slice."""
        requests = sum(one.requests for one in slices)
        return cls(
            per_second=statistics.fmean(one.rate for one in slices),
            p50_us=statistics.median(one.p50 for one in slices),
            p95_us=statistics.median(one.p95 for one in slices),
            p99_us=statistics.median(one.p99 for one in slices),
            cpu_us=1e6 * sum(one.cpu_seconds for one in slices) / (requests or 1),
            requests=requests,
            errors=sum(one.refused + one.broken for one in slices),
        )


class Load:
    """POSTs bodies in turn to one URL.

    ``used_seconds`` tells how long those who answer have computed so far.
    """

    def __init__(
        self, url: str, bodies: Iterable[Any], used_seconds: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._used_seconds = used_seconds
        self._url = url
        self._lines = "".join(f"{json.dumps(body)}\n" for body in bodies)

    def run(self, connections: int, seconds: int) -> Slice:
        """Send for whole ``seconds``; raise ``RuntimeError`` if wrk could not."""
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as bodies:
            bodies.write(self._lines)
            bodies.flush()
            command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
            before = self._used_seconds()
            done = subprocess.run(
                [*command, "-s", str(_SCRIPT), self._url, "--", bodies.name],
                check=False,
                capture_output=True,
                text=True,
            )
        line = done.stdout.rstrip().rpartition("\n")[2]
        if done.returncode or not line.startswith("{"):
            raise RuntimeError(f"wrk: {done.stdout}{done.stderr}")
        made = Slice(**json.loads(line), cpu_seconds=self._used_seconds() - before)
        self._await_idleness()
        return made

    def _await_idleness(self) -> None:
        """Wait for the answers to what wrk had asked for last: it hangs up at the end.

        Else those who are measured next would share the processors with whoever makes them, which
        takes half a minute for 256 batches.
        """
        is_idle = False
        while not is_idle:
            before = self._used_seconds()
            time.sleep(_LOOK_SECONDS)
            is_idle = self._used_seconds() - before < _IDLE_SHARE * _LOOK_SECONDS
