"""What tests of documents and releases need."""

import subprocess
from pathlib import Path

import pytest

from scripts.throwaway import ROOT


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project where somebody else makes a release and a site of it; leave it as it is."""
    directory = tmp_path_factory.mktemp("clone") / "jose-hsm"
    subprocess.run(["git", "clone", "--quiet", ROOT, directory], check=True)
    return directory
