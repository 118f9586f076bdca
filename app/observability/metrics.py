"""Metrics in the Prometheus format. No label ever names a key or a principal."""

import atexit
import math
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from threading import Lock, local
from typing import Any, Final, NamedTuple
from uuid import uuid4

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from app import current_request
from app.observability.kinds import Count
from app.observability.latency import Bucket
from app.observability.multiprocess import (
    Buffer,
    Together,
    mark_of,
    metrics_of,
    observe_all,
    shared_directory,
)
from hsm import Cause, Hsm, Observer, Periodic

_FLUSH_SECONDS: Final = 1.0
_MOST_NOTED: Final = 10_000
PREFIX: Final = "jose_hsm_"
_ANSWERED: Final = (f"{PREFIX}requests", f"{PREFIX}batch_requests")
_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0)
_ODD_VERSION: Final = re.compile(r"version=(?!\d{1,3}(\.\d{1,3}){0,2} *(;|$))", re.ASCII)

TRANSITIONS: Final = ("published", "rotated", "retired")
"""The steps of key sets that the service makes by itself."""

Answers = Iterable[tuple[str, int]]
"""Endpoints, each with a status."""


class Workers(NamedTuple):
    """The live workers: how many, how many have their token, and their sessions together."""

    number: int
    connected: int
    idle_sessions: int
    lent_sessions: int


class Children(dict[tuple[str, ...], Any]):
    """The children of a metric by their labels; made once, because to look one up is slow."""

    def __init__(self, metric: Any) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        child = self[labels] = self._metric.labels(*labels)
        return child

    def bear(self, labels: Iterable[tuple[str, ...]]) -> None:
        """Have the children of ``labels`` at 0."""
        for one in labels:
            self[one]


class Metrics(Observer):
    """Counts what happens in this process; shows what has happened in all of the service."""

    def __init__(self, answers: Answers = (), parts: Answers = ()) -> None:
        """Begin at 0 with what may be answered, as requests and as ``parts`` of batches."""
        self._buffer = Buffer()
        self._noted: deque[tuple[Counter | Histogram, float]] = deque()
        self._settling = Lock()
        self._withheld = local()  # the calls that a thread may have to keep to itself
        self._most_spent = 0.0
        self._mark = b""
        self._counts: Sequence[Count] = ()
        self._directory = shared_directory()
        self.source: Final = self._directory or str(uuid4())
        """The name of these counters; no others, before or later, have the same."""
        if self._directory:
            self._buffer.take_over()
        self._registry = CollectorRegistry()
        self._requests = Children(
            self._counter("requests", "Requests answered", "endpoint", "status")
        )
        self._request_seconds = Children(
            self._histogram("request_seconds", "Time to answer a request", "endpoint")
        )
        self._parts = Children(
            self._counter("batch_requests", "Requests answered in batches", "endpoint", "status")
        )
        self._calls = Children(
            self._histogram("pkcs11_call_seconds", "Time of a call into the token", "function")
        )
        self._errors = Children(
            self._counter("pkcs11_errors", "Calls that did not return CKR_OK", "function", "code")
        )
        self._queue = self._histogram("session_wait_seconds", "Wait for a session")
        self._sessions = Children(
            self._gauge("sessions", "Sessions of the live workers", "livesum", "state")
        )
        self._up = self._gauge("token_up", "1 while this worker has its token", "liveall")
        self._connections = self._counter("token_connections", "Initialisations that ended well")
        self._again = self._counter("token_reinitialisations", "Those after the first of a worker")
        self._lost = Children(self._counter("token_losses", "Losses of the token", "cause"))
        self._registry_use = self._histogram("registry_seconds", "Use of a registry connection")
        self._dropped = self._counter("log_lines_dropped", "Log lines that nobody took")
        self._transitions = Children(
            self._counter("keyset_transitions", "Steps of key sets", "transition")
        )
        self._rotation = self._gauge(
            "keyset_days_until_rotation", "Until the next one of any, below 0 if late", "livemin"
        )
        self._pin_refused = self._gauge(
            "pin_refused", "1 while the token refuses the PIN, which is not tried again", "livemax"
        )
        self._budget = self._gauge(
            "encryption_budget_used_ratio", "Of the AES-GCM key that has most behind it", "livemax"
        )
        self._broken_seals = self._counter(
            "broken_seals", "Uses of keys whose rows somebody else has changed"
        )
        self._audit = Children(self._counter("audit_lines", "Lines for the audit log", "outcome"))
        self._build = self._gauge("build_info", "1, by the version that serves", "max", "version")
        self._build.labels(version("jose-hsm")).set(1)
        self._up.set(0)
        self._bear(answers, parts)

    def _bear(self, answers: Answers, parts: Answers) -> None:
        """Have series at 0: one that appears with its first event has not grown by it."""
        self._requests.bear((endpoint, str(status)) for endpoint, status in answers)
        self._parts.bear((endpoint, str(status)) for endpoint, status in parts)
        self._audit.bear([("written",), ("failed",)])
        self._sessions.bear([("lent",), ("idle",)])
        self._lost.bear([(Cause.LOST,)])
        self._transitions.bear((transition,) for transition in TRANSITIONS)
        self._rotation.set(math.inf)

    def start(self, hsm: Hsm) -> None:
        """Begin to share what is counted. Call after fork, never before."""
        self._hsm = hsm
        if self._directory:
            atexit.register(self._share)  # after the thread has ended: the last comes first
            Periodic("metrics", self._share, pause_seconds=_FLUSH_SECONDS).start()

    def show(self, accepted: str, *others: Collector) -> tuple[bytes, str]:
        """Return the metrics of all workers, and ``others``, with their content type.

        That is one that is ``accepted``.
        """
        self._share()
        shown = CollectorRegistry()
        for collector in (self._of_all(), *others):
            shown.register(collector)
        encode, content_type = choose_encoder(_readable(accepted))
        return encode(shown), content_type

    def counts(self) -> Sequence[Count]:
        """Return the requests that all workers have answered, and those in batches.

        They are asked for every few seconds, and read only if any has been counted since.
        """
        mark = mark_of(self._directory, "counter") if self._directory else uuid4().bytes
        if mark != self._mark:
            self._mark, self._counts = mark, list(self._read_counts())
        return self._counts

    def _read_counts(self) -> Iterator[Count]:
        for family in self._families("counter"):
            if family.name in _ANSWERED:
                for sample in family.samples:
                    if sample.name.endswith("_total") and sample.value:
                        labels = sample.labels
                        yield Count(labels["endpoint"], int(labels["status"]), int(sample.value))

    def buckets(self) -> Iterator[Bucket]:
        """Give how long all workers took to answer, by endpoint, since their master started."""
        for family in self._families("histogram"):
            if family.name == f"{PREFIX}request_seconds":
                for sample in family.samples:
                    if sample.name.endswith("_bucket") and sample.value:
                        bound = float(sample.labels["le"])
                        yield Bucket(sample.labels["endpoint"], bound, int(sample.value))

    def workers(self) -> Workers:
        """Return what the live workers say of themselves."""
        self._share()
        up: list[float] = []
        sessions = {"idle": 0, "lent": 0}
        for family in self._families("gauge"):
            if family.name == f"{PREFIX}token_up":
                up = [sample.value for sample in family.samples]
            elif family.name == f"{PREFIX}sessions":
                sessions |= {one.labels["state"]: int(one.value) for one in family.samples}
        return Workers(len(up), int(sum(up)), sessions["idle"], sessions["lent"])

    @property
    def turn(self) -> Path | None:
        """A file for taking turns with the other workers; ``None`` where there are none."""
        return Path(self._directory, "history.lock") if self._directory else None

    def _of_all(self) -> Collector:
        return Together(self._directory) if self._directory else self._registry

    def _families(self, kind: str) -> Iterable[Metric]:
        """Return the metrics of a kind: the histograms, which are most of all, are read apart."""
        return metrics_of(self._directory, kind) if self._directory else self._registry.collect()

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._noted.append((self._requests[endpoint, str(status)], 1))
        self._note(self._request_seconds[endpoint,], seconds)

    def answered_parts(self, endpoint: str, status: int, number: int) -> None:
        """Count requests of a batch."""
        self._note(self._parts[endpoint, str(status)], number)

    def audited(self, outcome: str, number: int = 1) -> None:
        """Count lines of the audit log, written or failed."""
        self._noted.append((self._audit[outcome,], number))

    def waited(self, seconds: float) -> None:
        """Count a wait for a session."""
        if current := current_request.current():
            current.queue_seconds += seconds
        self._noted.append((self._queue, seconds))

    def called(self, function: str, seconds: float, code: str | None) -> None:
        """Count a call."""
        if (withheld := getattr(self._withheld, "calls", None)) is not None:
            withheld.append((function, seconds, code))
            return
        if current := current_request.current():
            current.hsm_seconds += seconds
        self._noted.append((self._calls[function,], seconds))
        if code is not None:
            self._errors[function, code].inc()

    @contextmanager
    def withholding(self, *failures: type[Exception]) -> Iterator[None]:
        """Count the calls of the ``with`` block at its end, unless it is one of ``failures``."""
        calls: list[tuple[str, float, str | None]] = []
        self._withheld.calls = calls
        try:
            yield
        except failures:
            calls.clear()
            raise
        finally:
            self._withheld.calls = None
            for call in calls:
                self.called(*call)

    def connected(self, epoch: int) -> None:
        """Count a connection, and one that was not the first."""
        self._connections.inc()
        if epoch > 1:
            self._again.inc()
        self._up.set(1)

    def lost(self, cause: str) -> None:
        """Count a loss."""
        self._lost[(cause,)].inc()
        self._up.set(0)

    def broke_seal(self) -> None:
        """Count a use of a key whose row was changed behind the back of the service."""
        self._broken_seals.inc()

    def used_registry(self, seconds: float) -> None:
        """Count a use of the registry."""
        self._note(self._registry_use, seconds)

    def dropped(self, number: int) -> None:
        """Count log lines that were dropped."""
        self._dropped.inc(number)

    def stepped(self, transition: str) -> None:
        """Count a step of a key set."""
        self._transitions[transition,].inc()

    def rotates_in(self, days: float) -> None:
        """Show when the next key set rotates; infinite if none does."""
        self._rotation.set(days)

    def spent(self, part: float) -> None:
        """Show that a key has this part of its encryptions behind it, if none has more."""
        with self._settling:
            self._most_spent = max(self._most_spent, part)
            self._budget.set(self._most_spent)

    def _note(self, metric: Counter | Histogram, amount: float) -> None:
        """Count later, many at a time: between other work each would cost several times as much.

        Whatever is noted here comes after a few others: it is enough to look here how many wait.
        """
        self._noted.append((metric, amount))
        if len(self._noted) > _MOST_NOTED:
            self._settle()

    def _settle(self) -> None:
        """Count what has been noted; whoever else comes waits until it is counted."""
        noted: defaultdict[Counter | Histogram, list[float]] = defaultdict(list)
        with self._settling:
            for _ in range(len(self._noted)):
                metric, amount = self._noted.popleft()
                noted[metric].append(amount)
            for metric, amounts in noted.items():
                _count(metric, amounts)

    def _share(self) -> None:
        size, lent = self._hsm.sessions
        self._settle()
        self._sessions[("lent",)].set(lent)
        self._sessions[("idle",)].set(size - lent)
        self._pin_refused.set(self._hsm.state.cause is Cause.PIN)
        self._buffer.flush()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, mode: Any, *labels: str) -> Gauge:
        return Gauge(
            f"{PREFIX}{name}", text, labels, registry=self._registry, multiprocess_mode=mode
        )

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"{PREFIX}{name}", text, labels, registry=self._registry, buckets=_SECONDS)


def _readable(accepted: str) -> str:
    """Return ``accepted`` without versions of formats that are none: they cannot be compared."""
    return ",".join(one for one in accepted.split(",") if not _ODD_VERSION.search(one))


def _count(metric: Counter | Histogram, amounts: Sequence[float]) -> None:
    if isinstance(metric, Histogram):
        observe_all(metric, amounts)
    else:
        metric.inc(sum(amounts))
