"""The benchmarks measure and report: on a tiny run, without a word on how fast anything is."""

import importlib
import re
import xml.etree.ElementTree as ET
from functools import partial
from typing import Any

import pytest

from scripts.bench import machine, profile, rates, report, scale
from scripts.bench.load import Load
from scripts.bench.points import POINTS
from scripts.bench.token_rate import OPERATIONS

NAMED = {point.name: point for point in POINTS}


def _say(_text: str) -> None:
    pass


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    points = [NAMED["create-aes"]]
    plan = rates.Plan(points, connections=[2], rounds=1, workers=1, token_seconds=0.05)
    return {
        "machine": machine.describe(),
        "workers": 1,
        "connections": ["2"],
        "points": rates.measure(plan, _say),
        "scale": scale.measure([3], rounds=1, workers=1, say=_say),
        "profile": profile.measure([NAMED["encrypt-64"]], seconds=1, say=_say),
    }


def test_every_point_has_its_calls_into_the_token():
    assert NAMED.keys() == OPERATIONS.keys()


@pytest.mark.long
def test_every_point_is_measured_three_times_and_without_errors(results):
    for entry in results["points"]:
        assert entry["token_per_second"] > 0
        for label in ("bare", "service"):
            metrics = entry[label]["2"]
            assert metrics["requests"] > 0
            assert metrics["errors"] == 0
            assert metrics["cpu_us"] > 0
            assert 0 < metrics["p50_us"] <= metrics["p95_us"] <= metrics["p99_us"]


@pytest.mark.long
def test_who_is_measured_next_has_the_processors_alone(serve, environment):
    """What is still computed when wrk has hung up is waited for, and is nobody's figure."""
    used = [1.0, 3.0, *(3.0, 3.5), *(3.5, 3.6), *(3.6, 3.601)]
    with serve(environment, workers=1) as url:
        one = Load(f"{url}/v1/crypto/keys", [{}], partial(used.pop, 0)).run(2, 1)
    assert (one.cpu_seconds, used) == (2.0, [])


@pytest.mark.long
def test_keys_are_as_many_as_asked_for_and_work(results):
    assert [one["keys"] for one in results["scale"]["by_keys"]] == [3]
    assert all(one["errors"] == 0 for one in results["scale"]["by_keys"])


@pytest.mark.long
def test_every_part_of_a_request_is_seen_in_the_profile(results):
    (parts,) = results["profile"].values()
    assert {title for title, *_ in profile.PARTS} <= {name for name, us in parts.items() if us > 0}


@pytest.mark.long
def test_the_report_has_a_row_for_each_point_and_no_path_of_the_machine(results):
    text = report.markdown(results)
    for entry in results["points"]:
        assert len(re.findall(rf"^\| {re.escape(entry['title'])} \|", text, re.MULTILINE)) == 4
    assert not re.search(r"/(home|root|tmp|usr)\b", text)


@pytest.mark.long
def test_the_report_compares_a_batch_with_as_many_single_requests(results):
    (entry,) = results["points"]

    def renamed(name: str, per_second: float) -> dict[str, Any]:
        service = {"2": entry["service"]["2"] | {"per_second": per_second}}
        return entry | {"name": name, "service": service}

    points = [renamed("encrypt-64", 500.0), renamed("batch-encrypt-64", 40.0)]
    assert "| operations in a batch / single requests | **8.0** |" in report.markdown(
        results | {"points": points}
    )


@pytest.mark.long
def test_the_report_says_what_has_become_of_each_figure(results):
    (entry,) = results["points"]
    before = {"2": {name: 2 * value for name, value in entry["service"]["2"].items()}}
    text = report.markdown(results | {"points": [entry | {"previous": before}]})
    assert text.count(": service / previous by connections") == 3
    assert text.count(f"| {entry['title']} | 0.50 |") == 3


@pytest.mark.long
def test_the_report_is_written_where_nothing_was_answered_in_time(results):
    (entry,) = results["points"]
    nothing = {"2": dict.fromkeys(entry["service"]["2"], 0)}
    slow = entry | dict.fromkeys(("bare", "previous", "service"), nothing)
    points = [slow | {"name": name} for name in ("encrypt-64", "batch-encrypt-64")]
    assert "nan" in report.markdown(results | {"points": points})


@pytest.mark.long
def test_the_plots_are_drawn(results, tmp_path):
    pytest.importorskip("matplotlib", reason="only the benchmarks need it")
    plots = importlib.import_module("scripts.bench.plots")
    plots.draw(results, tmp_path)
    for name in ("throughput", "latency", "keys", "memory"):
        assert ET.parse(tmp_path / f"{name}.svg").getroot().tag.endswith("svg")
