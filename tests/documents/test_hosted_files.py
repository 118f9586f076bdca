"""The files that a repository's host, pre-commit and editors read say what the project does."""

import re
import tomllib
from typing import Any

import pytest
import yaml

from scripts.throwaway import ROOT
from tests.shared.hosted import validator_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
SCHEMAS = {
    ".github/dependabot.yml": "dependabot",
    ".github/workflows/ci.yml": "github-workflows",
    "deploy/container/compose.yaml": "compose-spec",
    "examples/ci/github-actions.yml": "github-workflows",
    "examples/ci/gitlab-ci.yml": "gitlab-ci",
}
"""The schema of each, which its readers publish."""


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text("utf-8"))


@pytest.mark.parametrize("path", SCHEMAS)
def test_a_hosted_file_is_as_its_readers_want_it(path):
    validator = validator_of(SCHEMAS[path])
    validator.validate(as_written(path))
    assert not validator.is_valid([])


def as_written(path: str) -> Any:
    """Return what a YAML file says, where YAML 1.1 takes the name ``on`` for true."""
    members = read(path)
    return {"on" if name is True else name: value for name, value in members.items()}


def test_the_workflow_runs_what_must_pass_on_each_python_from_the_oldest_on():
    (job,) = read(".github/workflows/ci.yml")["jobs"].values()
    pythons = job["strategy"]["matrix"]["python"]
    assert f">={pythons[0]}" == PROJECT["project"]["requires-python"]
    assert pythons == [f"3.{minor}" for minor in range(11, 11 + len(pythons))]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


def test_the_workflow_pins_actions_by_major_version():
    (job,) = read(".github/workflows/ci.yml")["jobs"].values()
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used)


def test_the_workflow_may_only_read():
    assert read(".github/workflows/ci.yml")["permissions"] == {"contents": "read"}


def test_hooks_are_commands_of_make_check_and_download_nothing():
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        command = hook["entry"].removesuffix(" --force-exclude").replace(".venv/bin", "$(BIN)")
        assert hook["language"] == "system"
        assert f"\t{command}\n" in MAKEFILE


def test_the_folders_of_dependabot_have_something_to_update():
    folders = {
        update["package-ecosystem"]: update["directory"].lstrip("/")
        for update in read(".github/dependabot.yml")["updates"]
    }
    assert (ROOT / folders.pop("npm") / "package-lock.json").is_file()
    assert (ROOT / folders.pop("github-actions") / ".github/workflows").is_dir()
    assert not folders
