"""A release: one version, a wheel of the same bytes whoever makes it, and what is in it."""

import hashlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from scripts.throwaway import ROOT

VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def test_the_changelog_has_the_version_with_its_day():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    unreleased, first, *_ = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert unreleased == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(VERSION)}\] - \d{{4}}-\d\d-\d\d", first)


def test_the_version_is_written_in_one_place():
    """All else asks the metadata of the package, or is made of pyproject.toml."""
    written = re.compile(rf"""["']{re.escape(VERSION)}["']""")
    for folder in ("app", "hsm", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not written.search(path.read_text("utf-8")), path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wheel(directory: Path, umask: str, zone: str) -> str:
    """Make the wheel under a umask and in a time zone; return its digest."""
    script = f"umask {umask}; TZ={zone} exec {ROOT}/scripts/wheel {directory}"
    subprocess.run(["bash", "-c", script], check=True, cwd="/")
    (made,) = directory.iterdir()
    assert made.name == f"jose_hsm-{VERSION}-py3-none-any.whl"
    return digest(made)


@pytest.mark.long
def test_a_wheel_has_the_same_bytes_whoever_makes_it_and_when(tmp_path):
    mine = wheel(tmp_path / "mine", "0022", "UTC")
    assert wheel(tmp_path / "theirs", "0077", "Asia/Kolkata") == mine


@pytest.mark.long
def test_a_release_is_a_wheel_with_what_it_needs_and_the_digests(clone):
    subprocess.run(["make", "release"], cwd=clone, check=True)
    dist = clone / "dist"
    name = f"jose_hsm-{VERSION}"
    summed = dict(line.split("  ")[::-1] for line in (dist / "SHA256SUMS").read_text().splitlines())
    assert summed == {
        file: digest(dist / file) for file in (f"{name}-py3-none-any.whl", f"{name}.cdx.json")
    }
    bill = json.loads((dist / f"{name}.cdx.json").read_text())
    assert bill["metadata"]["component"]["version"] == VERSION
    needed = re.findall(r"^([a-z0-9-]+)==(\S+)", (clone / "requirements.lock").read_text(), re.M)
    listed = {
        (part["name"].lower().replace("_", "-"), part["version"]) for part in bill["components"]
    }
    assert {"flask", "cryptography", "python-pkcs11"} <= {part for part, _ in listed}
    assert listed <= set(needed)
    assert all(part["licenses"] for part in bill["components"])


@pytest.mark.long
def test_a_release_is_not_made_from_what_is_not_committed(clone):
    (clone / "app" / "new.py").write_text("")
    done = subprocess.run(["scripts/release"], cwd=clone, check=False, capture_output=True)
    (clone / "app" / "new.py").unlink()
    assert done.returncode == 1
    assert b"commit first" in done.stderr
