"""The long trials of the Makefile, in their short form."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from scripts.throwaway import ROOT
from scripts.trials import padding_oracle
from scripts.trials.million import report
from tests.shared.forks import COMMON
from tests.shared.waiting import COMMAND


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a trial as it is run alone, without what the tests have in common."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != COMMON},
        check=False,
        capture_output=True,
        text=True,
        timeout=COMMAND.seconds,
    )


@pytest.mark.long
def test_sixteen_clients_create_use_and_destroy_and_nothing_is_wrong():
    done = run("scripts.trials.mixed_load", "--seconds", "30", "--clients", "16")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_keys_of_each_algorithm_outlive_a_killed_worker_and_a_restart():
    done = run("scripts.trials.token_load", "--seconds", "20", "--clients", "8")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_key_sets_rotate_while_workers_are_killed_and_no_verifier_notices():
    done = run("scripts.trials.rotation", "--minutes", "1")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_while_everything_fails_at_random_nothing_is_wrong_or_lost():
    done = run("scripts.trials.soak", "--minutes", "0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "uses of keys: number, p50, p95, p99 in ms" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("together", ["0", "3"])
def test_the_comparison_of_padding_and_tag_prints_its_t(together):
    done = run("scripts.trials.padding_oracle", "--requests", "100", "--together", together)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count('"t":') == len(padding_oracle.ALGORITHMS)


@pytest.mark.long
def test_a_thousand_keys_of_the_registry_leave_nothing_on_the_token(tmp_path):
    begun = run("scripts.trials.million", "--keys", "300", "--state", str(tmp_path), "--only-make")
    assert begun.returncode == 0, begun.stdout + begun.stderr
    done = run("scripts.trials.million", "--keys", "1000", "--state", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr  # 1 if there are more objects
    points = json.loads((tmp_path / "made.json").read_text())["points"]
    assert [point["keys"] for point in points] == [300, 1000]
    assert "1,000  keys made" in done.stdout
    assert "bytes of the database for each" in done.stdout
    assert "objects on the token at the end (≤ 6)" in done.stdout


MILLION = {
    "keys": 5000,
    "clients": 2,
    "machine": dict.fromkeys(
        ["processor", "cores", "memory", "kernel", "Python", "SoftHSM", "date"], "of the machine"
    ),
    "database": "sqlite",
    "per_second": 500.0,
    "per_cpu_second": 2000.0,
    "bytes_each": 1234.0,
    "objects": 4,
    "points": [
        {"keys": keys, "sign": [0.002, 0.003], "list": [1, 1], "status": [1, 2], "page": 0.004}
        for keys in (1000, 5000)
    ],
    "cold": {"single": [0.004, 0.002], "batch": [0.002, 0.001], "token": [0.001, 0.001]},
    "boot_seconds": 2.0,
    "booted_kib": 102400,
    "used_kib": 112640,
}


def test_the_figures_of_very_many_keys_are_told_beside_what_is_promised():
    page = report.page(MILLION)
    assert "| p50 of sign / that with 10 keys | 1.50 | ≤ 1.05 | **missed** |" in page
    assert "| objects on the token at the end | 4 | ≤ 6 |  |" in page
    assert "one in a request (of CPU) | 0.25 (0.50) | ≥ 0.5 | **missed** |" in page
    assert "one of a batch of 100 (of CPU) | 0.50 (1.00) | ≥ 0.5 |  |" in page
    assert "| 5,000 | 1.50 | 1.00 | 2.00 |" in page
    assert "(≤ 120)" in report.text(MILLION)


def test_they_are_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="only the benchmarks need it")
    report.write(MILLION, tmp_path)
    assert json.loads((tmp_path / "million.json").read_text()) == MILLION
    assert ET.parse(tmp_path / "million.svg").getroot().tag.endswith("svg")


@pytest.mark.long
def test_the_comparison_of_few_and_many_keys_prints_its_ratio():
    done = run("scripts.trials.warm_cost", "--few", "2", "--many", "4", "--requests", "20")
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "ratio:" in done.stdout


@pytest.mark.long
def test_what_it_costs_to_watch_is_told_and_all_of_it_is_watched():
    done = run("scripts.trials.watching_cost")
    assert (done.returncode, done.stderr) == (0, "")
    assert "us more" in done.stdout


@pytest.mark.long
def test_how_far_it_is_to_the_token_is_told():
    done = run("scripts.trials.trace_calls")
    assert done.returncode == 0, done.stderr
    assert "closures to C_Sign" in done.stdout
