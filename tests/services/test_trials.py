"""The long trials of the Makefile, in their short form."""

import os
import subprocess
import sys

import pytest

from scripts.throwaway import ROOT
from scripts.trials import padding_oracle
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


@pytest.mark.parametrize("seconds", ["1", pytest.param("30", marks=pytest.mark.long)])
def test_sixteen_clients_create_use_and_destroy_and_nothing_is_wrong(seconds):
    done = run("scripts.trials.mixed_load", "--seconds", seconds, "--clients", "16")
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
def test_a_thousand_keys_of_the_registry_leave_nothing_on_the_token():
    done = run("scripts.trials.million", "--keys", "1000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1,000 keys made" in done.stdout
    assert "bytes of the database for each" in done.stdout


@pytest.mark.long
def test_the_comparison_of_few_and_many_keys_prints_its_ratio():
    done = run("scripts.trials.warm_cost", "--few", "2", "--many", "4", "--requests", "20")
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "ratio:" in done.stdout
