"""The figures as Markdown: ratios first, then what they are made of."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from scripts.bench.points import BATCHED

Results = dict[str, Any]

_HEAD: Final = """# Benchmarks

Written by `make bench`. The raw figures are in [results.json](results.json).

* **service**: requests answered in a second, over HTTP on loopback, with {workers} workers.
* **bare**: the same for a Flask view that parses the same body and returns the same JSON, behind
  gunicorn's own threaded worker. Service / bare says what everything beyond Flask costs.
* **token**: the same operation through python-pkcs11 alone, in {workers} processes that do nothing
  else. Service / token says how much of the token's rate arrives at clients.
* **CPU**: processor time of the workers for one request, in microseconds. It hardly depends on what
  else the machine does.
* **previous**: the same service at another commit, if one was named.

The load generator and the workers share the machine's cores. The three are measured in slices that
take turns; a rate is the mean of its slices, a percentile their median.
"""


_MEASURES: Final = {
    "cpu_us": "CPU of a request",
    "per_second": "Rate",
    "p99_us": "p99",
}
"""What is compared with the service at another commit, and how it is called."""


def markdown(results: Results) -> str:
    """Return the report."""
    sections = [
        _HEAD.format(workers=results["workers"]),
        _table(["", ""], results["machine"].items()),
        _at(results, _busiest(results)),
        _processor(results),
        *_changes(results),
        *(_ratios(results, of) for of in ("bare", "token")),
        *_batches(results),
        "![Throughput over concurrency](throughput.svg)\n",
        "![Latency over concurrency](latency.svg)\n",
        *_scale(results.get("scale")),
        *_profile(results.get("profile")),
    ]
    return "\n".join(sections)


def ratio(entry: Results, of: str, connections: str) -> float:
    """Return service / bare, or service / token."""
    below = entry["bare"][connections]["per_second"] if of == "bare" else entry["token_per_second"]
    return _quotient(entry["service"][connections]["per_second"], below)


def _quotient(figure: float, below: float) -> float:
    """Return ``figure / below``; nothing is said of it where no request was answered in time."""
    return figure / below if below else math.nan


def _batches(results: Results) -> Iterator[str]:
    named = {entry["name"]: entry["service"] for entry in results["points"]}
    if not {"encrypt-64", "batch-encrypt-64"} <= named.keys():
        return
    ratios = {
        connections: BATCHED
        * _quotient(
            *(named[name][connections]["per_second"] for name in ("batch-encrypt-64", "encrypt-64"))
        )
        for connections in results["connections"]
    }
    row = [
        "operations in a batch / single requests",
        *(f"**{one:.1f}**" for one in ratios.values()),
    ]
    yield f"## Batches of {BATCHED} by connections\n\n{_table(['', *ratios], [row])}"


def _busiest(results: Results) -> str:
    return "16" if "16" in results["connections"] else results["connections"][-1]


def _at(results: Results, connections: str) -> str:
    head = ["operation", "token /s", "bare /s", "service /s", "service / bare", "service / token"]
    head += ["p50 ms", "p95 ms", "p99 ms", "errors"]
    rows = (
        [
            entry["title"],
            f"{entry['token_per_second']:.0f}",
            f"{entry['bare'][connections]['per_second']:.0f}",
            f"{entry['service'][connections]['per_second']:.0f}",
            *(f"**{ratio(entry, of, connections):.2f}**" for of in ("bare", "token")),
            *(f"{entry['service'][connections][f'p{p}_us'] / 1000:.1f}" for p in (50, 95, 99)),
            str(sum(figures["errors"] for figures in entry["service"].values())),
        ]
        for entry in results["points"]
    )
    return f"## At {connections} connections\n\n{_table(head, rows)}"


def _processor(results: Results) -> str:
    """Return what a request costs the workers, with one connection and with many."""
    few, many = results["connections"][0], _busiest(results)
    labels = ("bare", "previous", "service")
    head = ["operation"] + [f"{label} at {at}" for at in (few, many) for label in labels]
    rows = (
        [
            entry["title"],
            *(
                f"{entry[label][at]['cpu_us']:.0f}" if label in entry else ""
                for at in (few, many)
                for label in labels
            ),
        ]
        for entry in results["points"]
    )
    return f"## CPU of a request by connections\n\n{_table(head, rows)}"


def _changes(results: Results) -> Iterator[str]:
    """Return what has become of each figure of the service at another commit."""
    both = [entry for entry in results["points"] if "previous" in entry]
    for name, title in _MEASURES.items() if both else ():
        rows = (
            [
                entry["title"],
                *(
                    f"{_quotient(one[name], entry['previous'][connections][name]):.2f}"
                    for connections, one in entry["service"].items()
                ),
            ]
            for entry in both
        )
        table = _table(["", *results["connections"]], rows)
        yield f"## {title}: service / previous by connections\n\n{table}"


def _ratios(results: Results, of: str) -> str:
    rows = (
        [
            entry["title"],
            *(f"{ratio(entry, of, connections):.2f}" for connections in results["connections"]),
        ]
        for entry in results["points"]
    )
    return f"## Service / {of} by connections\n\n{_table(['', *results['connections']], rows)}"


def _scale(scale: Results | None) -> Iterator[str]:
    if scale is None:
        return
    few = scale["by_keys"][0]["p50_us"]
    head = ["keys", "p50 ms", "p50 / that with the fewest", "boot to ready s"]
    head += ["MiB of a worker, booted", "MiB after use"]
    rows = (
        [
            f"{one['keys']:,}",
            f"{one['p50_us'] / 1000:.2f}",
            f"**{one['p50_us'] / few:.2f}**",
            f"{one['boot_seconds']:.1f}",
            f"{one['booted_kib'] / 1024:.0f}",
            f"{one['used_kib'] / 1024:.0f}",
        ]
        for one in scale["by_keys"]
    )
    yield (
        "## With many keys\n\n`dir` A256GCM of 64 B on one connection, with up to 100 of the keys "
        f"in turn; resident memory of one worker.\n\n{_table(head, rows)}"
    )
    yield f"A worker grows by {scale['growth_kib_per_1000'] / 1024:.1f} MiB per 1,000 keys used.\n"
    yield "![Latency with many keys](keys.svg)\n"
    yield "![Memory of a worker](memory.svg)\n"


def _profile(profile: Results | None) -> Iterator[str]:
    if profile is None:
        return
    totals = {title: sum(parts.values()) for title, parts in profile.items()}
    names = dict.fromkeys(name for parts in profile.values() for name in parts)
    rows = [
        [
            name,
            *(
                f"{parts.get(name, 0):.0f} ({parts.get(name, 0) / totals[title]:.0%})"
                for title, parts in profile.items()
            ),
        ]
        for name in names
    ]
    rows.append(["**all**", *(f"**{total:.0f}**" for total in totals.values())])
    yield (
        "## Where the time goes\n\nMicroseconds of CPU time of one request in one worker, "
        f"by part; reading the clock is in them.\n\n{_table(['', *profile], rows)}"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---", *(["--:"] * (len(head) - 1))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))
