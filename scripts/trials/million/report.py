"""What was seen of very many keys, beside what is promised: as text, as a page, and as a plot."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

Results = Mapping[str, Any]

MOST_OBJECTS: Final = 6
_LEAST_RATE: Final = 0.5
_KIB: Final = 1024
_NAME: Final = "million"
_ASKED: Final = {"sign": "sign, the key in use", "list": "a page of 10 keys", "status": "/status"}
_COLD: Final = {
    "single": "one in a request",
    "batch": "one of a batch of 100",
    "token": "the token's own unwrap, sign and destroy",
}


class Line(NamedTuple):
    """A figure as it is written, what is promised of it, and whether it missed that."""

    what: str
    value: str
    promised: str = ""
    is_missed: bool = False


def lines(results: Results) -> Iterator[Line]:
    """Return all figures."""
    cold, last = results["cold"], results["points"][-1]
    few, many = last["sign"]
    yield Line("keys made", f"{results['keys']:,}")
    yield Line("made in a second", f"{results['per_second']:,.0f}")
    yield Line("made in a second of the workers' CPU", f"{results['per_cpu_second']:,.0f}")
    yield Line("bytes of the database for each", f"{results['bytes_each']:,.0f}")
    yield _most("objects on the token at the end", results["objects"], MOST_OBJECTS)
    yield Line("p50 of sign, ms", f"{1e3 * many:.2f}")
    yield _most("p50 of sign / that with 10 keys", many / few, 1.05, decimals=2)
    for name, what in _COLD.items():
        seconds, cpu_seconds = cold[name]
        yield Line(
            f"sign, the key unwrapped first: {what}, ms (CPU)",
            f"{1e3 * seconds:.2f} ({1e3 * cpu_seconds:.2f})",
        )
    for name in ("single", "batch"):
        ratio, cpu_ratio = (own / its for own, its in zip(cold["token"], cold[name], strict=True))
        yield Line(
            f"rate / the token's own: {_COLD[name]} (of CPU)",
            f"{ratio:.2f} ({cpu_ratio:.2f})",
            f"≥ {_LEAST_RATE}",
            ratio < _LEAST_RATE,
        )
    for name, what in (("booted_kib", "booted"), ("used_kib", "after use")):
        yield _most(f"memory of the worker, {what}, MiB", results[name] / _KIB, 120)
    yield _most("start to first signature, s", results["boot_seconds"], 3, decimals=1)
    yield _most("a page of 50 keys, ms", 1e3 * last["page"], 10, decimals=1)
    yield Line("/status, ms", f"{1e3 * last['status'][1]:.1f}")


def _most(what: str, value: float, most: float, *, decimals: int = 0) -> Line:
    """Return a figure that is to be at most so much, also before it is rounded."""
    return Line(what, f"{value:.{decimals}f}", f"≤ {most}", value > most)


def text(results: Results) -> str:
    """Return the figures as lines."""
    return "\n".join(
        f"{line.value:>14}  {line.what}"
        + (f" ({line.promised})" if line.promised else "")
        + (", missed" if line.is_missed else "")
        for line in lines(results)
    )


def write(results: Results, directory: Path) -> None:
    """Write the figures, a page and a plot of them."""
    directory.mkdir(parents=True, exist_ok=True)
    figures = json.dumps(results, indent=1) + "\n"
    (directory / f"{_NAME}.json").write_text(figures, "utf-8")
    (directory / f"{_NAME}.md").write_text(page(results), "utf-8")
    draw(results, directory / f"{_NAME}.svg")


def _marked(line: Line) -> tuple[str, ...]:
    return line.what, line.value, line.promised, "**missed**" if line.is_missed else ""


def page(results: Results) -> str:
    """Return the figures as Markdown."""
    machine = results["machine"]
    own = ("processor", "cores", "memory", "kernel", "Python", "SoftHSM", "date")
    where = [(name, machine[name]) for name in own] + [("registry", results["database"])]
    compared = [
        (
            f"{point['keys']:,}",
            *(f"{point[name][1] / point[name][0]:.2f}" for name in _ASKED),
            *(f"{1e3 * point[name][1]:.2f}" for name in _ASKED),
        )
        for point in results["points"]
    ]
    head = ("keys", *(f"{what}, ratio" for what in _ASKED.values()))
    head += tuple(f"{what}, ms" for what in _ASKED.values())
    return f"""# Keys by the million

Written by `make million KEYS={results["keys"]} URL=… OUT=docs/benchmarks`. The raw figures are in
[{_NAME}.json]({_NAME}.json).

P-256 keys that the registry keeps, made 100 in a request by clients and workers of which there are
{results["clients"]}; all else is of one worker. Times are of requests over HTTP on loopback, one
after the other. A ratio is to a service with 10 keys, which runs beside and is asked in turn, so
that what else the machine does hits both alike. On a machine that is busy milliseconds say little;
ratios and CPU do.

{_table(("", ""), where)}
{_table(("", "seen", "promised", ""), map(_marked, lines(results)))}
## As they become more

{_table(head, compared)}
![Answers as keys become more]({_NAME}.svg)
"""


def draw(results: Results, path: Path) -> None:
    """Write how long answers take as keys become more, as multiples of those with 10 keys."""
    import matplotlib as mpl  # noqa: PLC0415  # only the benchmarks need it
    from matplotlib.figure import Figure  # noqa: PLC0415  # as above

    from scripts.bench.plots import STYLE  # noqa: PLC0415  # as above

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        numbers = [point["keys"] for point in results["points"]]
        for name, what in _ASKED.items():
            ratios = [point[name][1] / point[name][0] for point in results["points"]]
            axes.plot(numbers, ratios, "o-", label=what)
        axes.set_title("Time of an answer / that with 10 keys")
        axes.set_xscale("log")
        axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
        axes.set_xlabel("keys in the registry")
        axes.set_ylim(bottom=0)
        axes.legend()
        figure.savefig(path, metadata={"Date": None}, facecolor="white")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    rule = ["---", *(["--:"] * (len(head) - 1))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))
