"""The figures as SVG."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

Results = dict[str, Any]

_COLUMNS: Final = 4
_BLUE, _ORANGE, _GREEN = "#0072b2", "#d55e00", "#009e73"  # told apart by everybody
STYLE: Final[Any] = {
    "svg.hashsalt": "jose-hsm",
    "svg.fonttype": "none",  # text stays text
    "font.size": 9,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
}


def draw(results: Results, directory: Path) -> None:
    """Write all plots for which there are figures."""
    plots = {"throughput": _throughput, "latency": _latency}
    if "scale" in results:
        plots |= {"keys": _keys, "memory": _memory}
    with mpl.rc_context(STYLE):
        for name, plot in plots.items():
            figure = plot(results)
            figure.savefig(directory / f"{name}.svg", metadata={"Date": None}, facecolor="white")


def _throughput(results: Results) -> Figure:
    def panel(axes: Axes, entry: Results, connections: list[int]) -> None:
        for label, colour in (("bare", _ORANGE), ("service", _BLUE)):
            rates = [one["per_second"] for one in entry[label].values()]
            axes.plot(connections, rates, marker="o", markersize=3, color=colour, label=label)
        axes.axhline(entry["token_per_second"], color=_GREEN, linestyle="--", label="token alone")

    return _grid(results, panel, "Throughput", "requests / s")


def _latency(results: Results) -> Figure:
    def panel(axes: Axes, entry: Results, connections: list[int]) -> None:
        for percentile, colour in (("p50", _GREEN), ("p95", _BLUE), ("p99", _ORANGE)):
            times = [one[f"{percentile}_us"] / 1000 for one in entry["service"].values()]
            axes.plot(connections, times, marker="o", markersize=3, color=colour, label=percentile)

    return _grid(results, panel, "Latency of the service", "ms")


def _grid(
    results: Results, panel: Callable[[Axes, Results, list[int]], None], title: str, unit: str
) -> Figure:
    """Draw one panel for each point, over the number of connections; both axes logarithmic."""
    connections = [int(number) for number in results["connections"]]
    points = results["points"]
    rows = -(-len(points) // _COLUMNS)
    figure = Figure(figsize=(12, 2.4 * rows + 0.8), layout="constrained")
    for number, entry in enumerate(points, start=1):
        axes = figure.add_subplot(rows, _COLUMNS, number)
        panel(axes, entry, connections)
        axes.set_title(entry["title"], fontsize=9)
        axes.set_xscale("log", base=2)
        axes.set_xticks(connections, [str(number) for number in connections])
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        if (number - 1) % _COLUMNS == 0:
            axes.set_ylabel(unit)
        if number > len(points) - _COLUMNS:
            axes.set_xlabel("connections")
    figure.suptitle(title)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _keys(results: Results) -> Figure:
    by_keys = results["scale"]["by_keys"]
    figure, axes = _single("One warm encryption with many keys on the token")
    for percentile, colour in (("p50", _GREEN), ("p95", _BLUE), ("p99", _ORANGE)):
        times = [one[f"{percentile}_us"] / 1000 for one in by_keys]
        axes.plot([one["keys"] for one in by_keys], times, "o-", color=colour, label=percentile)
    axes.set_xscale("log")
    axes.set_xticks([one["keys"] for one in by_keys], [f"{one['keys']:,}" for one in by_keys])
    axes.set_xlabel("keys on the token")
    axes.set_ylabel("ms")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _memory(results: Results) -> Figure:
    by_keys = results["scale"]["by_keys"]
    figure, axes = _single("Resident memory of one worker")
    for offset, name, label, colour in (
        (-0.2, "booted_kib", "booted", _BLUE),
        (0.2, "used_kib", "after use", _ORANGE),
    ):
        places = [index + offset for index in range(len(by_keys))]
        sizes = [one[name] / 1024 for one in by_keys]
        bars = axes.bar(places, sizes, width=0.38, color=colour, label=label)
        axes.bar_label(bars, fmt="{:.0f}")
    axes.set_xticks(range(len(by_keys)), [f"{one['keys']:,}" for one in by_keys])
    axes.set_xlabel("keys on the token")
    axes.set_ylabel("MiB")
    axes.margins(y=0.15)
    axes.legend(loc="upper left")
    return figure


def _single(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes
