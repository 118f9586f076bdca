"""What many keys on the token cost: the warm p50 of ``dir``, memory of a worker, time to boot."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from uuid import UUID

import requests

from scripts.bench.keys import fill
from scripts.bench.load import Load, Metrics, Slice
from scripts.bench.points import Body, Client
from scripts.throwaway import Server, make_token, server
from scripts.workers import workers_of

_USED: Final = 100
_DATA: Final = "A" * 86  # 64 bytes
_READY_SECONDS: Final = 120


class Scale(NamedTuple):
    """One service with one worker, and what was seen of it."""

    running: Server
    bodies: Sequence[Body]
    boot_seconds: float
    booted_kib: int
    slices: list[Slice]

    @classmethod
    @contextmanager
    def served(cls, home: Path, keys: int, workers: int) -> Iterator[Self]:
        """Make ``keys`` and serve them: first with ``workers``, to see how long these boot."""
        settings = make_token(home)
        bodies = [_body(kid) for kid in fill(settings, keys)]
        started = time.monotonic()
        with server(settings, workers=workers) as running:
            _wait_for(running, bodies[0])
            boot_seconds = time.monotonic() - started
        with server(settings, workers=1) as running:
            _wait_for(running, bodies[0])
            yield cls(running, bodies, boot_seconds, resident_kib(running), [])

    @property
    def load(self) -> Load:
        """Use some of the keys in turn."""
        return Load(Client(self.running.url).url + "/encrypt", self._used)

    def warm_up(self) -> None:
        """Have the worker find each of them: the first use of a key searches the whole token."""
        client = Client(self.running.url)
        for body in self._used:
            client.post("/encrypt", body)
        self.load.run(1, 2)

    @property
    def _used(self) -> Sequence[Body]:
        return self.bodies[:: max(1, len(self.bodies) // _USED)]

    def growth_kib(self) -> int:
        """Return by how much the worker grows when every key is used."""
        before = resident_kib(self.running)
        client = Client(self.running.url)
        for body in self.bodies:
            client.post("/encrypt", body)
        return resident_kib(self.running) - before

    def figures(self) -> dict[str, Any]:
        """Return what was seen."""
        return {
            "keys": len(self.bodies),
            "boot_seconds": self.boot_seconds,
            "booted_kib": self.booted_kib,
            "used_kib": resident_kib(self.running),
            **Metrics.of(self.slices)._asdict(),
        }


def measure(
    counts: Sequence[int], *, rounds: int, workers: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return the figures for each count of keys, in slices that take turns, and the growth."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jose-hsm-")))
        scales = []
        for count in counts:
            say(f"making {count} keys")
            scales.append(stack.enter_context(Scale.served(root / str(count), count, workers)))
        for scale in scales:
            scale.warm_up()
        for number in range(1, rounds + 1):
            say(f"many keys: round {number} of {rounds}")
            for scale in scales:
                scale.slices.append(scale.load.run(1, 1))
        figures = [scale.figures() for scale in scales]
        say("using every key of one service")
        growing = scales[min(1, len(scales) - 1)]
        growth_kib = growing.growth_kib() * 1000 / len(growing.bodies)
    return {"by_keys": figures, "growth_kib_per_1000": growth_kib}


def _body(kid: UUID) -> Body:
    return {"kid": str(kid), "alg": "dir", "enc": "A256GCM", "data": _DATA}


def _wait_for(running: Server, body: Body) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        answer = requests.post(Client(running.url).url + "/encrypt", json=body, timeout=60)
        if answer.ok:
            return
        time.sleep(0.05)
    raise RuntimeError("the service does not become ready")


def resident_kib(running: Server) -> int:
    """Return the resident memory of the largest worker."""
    return max(map(_resident_kib_of, workers_of(running.process.pid)))


def _resident_kib_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0])
