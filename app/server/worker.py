"""The gunicorn worker: it loads the service with patience, and ends without dropping anybody."""

import gc
import mmap
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, ClassVar, Final

from flask import Flask, request
from gunicorn import util
from gunicorn.workers.base import Worker as BaseWorker

import hsm
from app.errors import NotReady
from app.http import answers
from app.observability.logs import conceal_requests
from app.server.clock import Deadlines, http_date
from app.server.confinement import confine
from app.server.connections import Connections
from app.server.listening.spread import Spread
from app.server.memory import freeze, settle
from app.server.refusals import write_error
from app.server.tls import Tls
from app.service import service_of

_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_PAUSE_OF_A_WORKER_SECONDS: Final = 15.0
_AT_ONCE_SECONDS: Final = 1.0
_SOON_SECONDS: Final = 300.0
_OPENING_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.02
_COLLECTED_OBJECTS: Final = 20_000
_SERVED: Final = (HTTPStatus.OK, HTTPStatus.NO_CONTENT)
_STOPS: Final = (signal.SIGTERM, signal.SIGQUIT)


class Worker(BaseWorker):  # type: ignore[misc]  # gunicorn has no types
    """A threaded worker that answers 503 while the service cannot be loaded, and tries again.

    A worker that dies at once, or soon and without ever having done anything for a client, has a
    successor that waits before it loads the service: 0.5 s, then twice as long each time. So
    nothing that kills workers makes the master fork in a tight loop.

    ``slot`` is the smallest number that no other worker of the master has; the service finds it in
    ``WORKER_SLOT``. Where each processor can have as many workers as any other, a worker computes
    on one: its threads take turns, and one that has to wake on another processor wakes late.
    """

    slot: int
    processor: int | None = None
    deadlines: Deadlines
    spread: ClassVar[Spread] = Spread()
    # Of the master: a worker that comes while a file is bad begins with what was good before.
    tls: ClassVar[Tls | None] = None
    # Counted in the master, where a reload makes no new class.
    _failures: ClassVar[Counter[int]] = Counter()

    # --- In the master ---

    @staticmethod
    def hold_stops() -> None:
        """Have a stop wait until the worker that is forked next can be told of it.

        Before ``init_signals`` a worker would put it where the master keeps its own, and serve on
        until the master loses patience.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)

    @staticmethod
    def take_stops() -> None:
        """Be told of stops again, and of those that waited."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)

    def take_slot(self, workers: Iterable["Worker"]) -> None:
        """Take a place that is free among ``workers``, and the patience that goes with it."""
        taken = {worker.slot for worker in workers}
        self.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        self._pause_seconds = self._pause_after(self._failures[self.slot])
        self._begins = time.monotonic() + self._pause_seconds
        # Shared with the process that is forked next.
        self._is_proven, self._has_ended = mmap.mmap(-1, 1), mmap.mmap(-1, 1)

    def take_processor(self, workers: Iterable["Worker"], planned: int) -> None:
        """Take the processor that fewest of ``workers`` have, if all get equally many."""
        processors = sorted(os.sched_getaffinity(0))
        if planned % len(processors) == 0:
            taken = Counter(worker.processor for worker in workers)
            self.processor = min(processors, key=taken.__getitem__)

    def leave_slot(self) -> None:
        """Note whether the worker died of something that its successor may die of, too."""
        lived_seconds = time.monotonic() - self._begins
        long_enough_seconds = _AT_ONCE_SECONDS if self._is_proven[0] else _SOON_SECONDS
        if self._has_ended[0] or lived_seconds >= long_enough_seconds:
            self._failures[self.slot] = 0
        else:
            self._failures[self.slot] += 1
        self._is_proven.close()
        self._has_ended.close()
        self.spread.leave(self.slot)

    def _pause_after(self, failures: int) -> float:
        """Return seconds: twice as many each time, and then those until the turn of this slot.

        Each slot has a turn in a period, 15 s after that of another, on a clock that all processes
        share: so all workers together boot no more than five times in a minute.
        """
        if failures == 0:
            return 0.0
        period = max(_LONGEST_PAUSE_SECONDS, _PAUSE_OF_A_WORKER_SECONDS * self.cfg.workers)
        pause = _FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 16)
        if pause >= period:
            until_turn: float = (_PAUSE_OF_A_WORKER_SECONDS * self.slot - time.monotonic()) % period
            return until_turn
        return pause * random.SystemRandom().uniform(0.75, 1.0)  # so that not all come at once

    # --- In the worker ---

    def init_process(self) -> None:
        """Run until the end; never leave with the codes 3 and 4, at which gunicorn gives up."""
        # A terminal sends Ctrl-C to all, and the master alone decides how its workers end.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        if self.processor is not None:
            with suppress(OSError):  # it may have been taken from the service
                os.sched_setaffinity(0, {self.processor})
        os.environ["WORKER_SLOT"] = str(self.slot)
        util.write_error, util.http_date = write_error, http_date
        confine()
        conceal_requests()
        try:
            super().init_process()
        except Exception:
            self.log.exception("the worker cannot go on")
            sys.exit(os.EX_SOFTWARE)

    def init_signals(self) -> None:
        """Be told of a stop, also of one that came before."""
        super().init_signals()
        self.take_stops()

    def load_wsgi(self) -> None:
        """Load the service, at once or in the background; until then everything is unavailable."""
        self.wsgi: Any = _standby()
        if self._pause_seconds or not self._load():
            threading.Thread(target=self._load_later, name="load", daemon=True).start()

    def _load_later(self) -> None:
        failures = 1
        time.sleep(self._pause_seconds or self._pause_after(failures))
        while not self._load():
            failures += 1
            time.sleep(self._pause_after(failures))

    def _load(self) -> bool:
        try:
            self.wsgi = self.app.wsgi()
        except (Exception, SystemExit):
            self.log.exception("the service cannot be loaded; trying again")
            return False
        freeze()
        gc.set_threshold(_COLLECTED_OBJECTS)
        return True

    def run(self) -> None:
        """Serve until told to stop, from when the token has been tried: until then callers wait."""
        deadline = time.monotonic() + _OPENING_SECONDS
        while self.alive and _is_opening(self.wsgi) and time.monotonic() < deadline:
            self.notify()
            time.sleep(_POLL_SECONDS)
        settle()
        self._connections = Connections(self, self.deadlines)
        self._connections.serve()
        self._has_ended[0] = True

    def beat(self) -> None:
        """Tell the master that this worker lives; without a master it stops."""
        self.notify()
        if self.ppid != os.getppid():
            self.alive, self.is_told = False, True

    def is_ending(self) -> bool:
        """Count a request; tell whether its connection should end with it."""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        return not self.alive or self._connections.are_many

    def note(self, method: str, status: int) -> None:
        """Look whether a client was served: what has worked once is not held back later."""
        if status in _SERVED and method != "GET":
            self._is_proven[0] = True

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop."""
        self.is_told = True
        super().handle_exit(sig, frame)

    is_told = False
    """Whether all workers stop, and nobody is to listen any more."""


def _is_opening(app: Any) -> bool:
    """Tell whether ``app``, which may be any WSGI application, is opening its token."""
    try:
        return service_of(app).hsm.state.phase is hsm.Phase.STARTING
    except (AttributeError, KeyError):
        return False


def _standby() -> Flask:
    """Return what answers while there is no service: the process lives, the rest is unavailable."""
    app = Flask(__name__, static_folder=None)
    answers.register(app)
    app.add_url_rule("/health/live", "live", lambda: {"status": "live"})
    reason = "the service is starting again"

    @app.before_request
    def _be_unavailable() -> None:
        if request.path == "/health/ready":
            raise NotReady(hsm.Phase.STARTING, hsm.Cause.STARTING, reason)
        if request.endpoint != "live":
            raise hsm.TokenUnavailable(reason)

    return app
