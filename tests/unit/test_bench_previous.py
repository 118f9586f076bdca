"""Another version of the service is started with a configuration of its own."""

import subprocess
from pathlib import Path
from unittest.mock import Mock

import pytest

from scripts.bench.previous import Previous
from scripts.throwaway import CONFIGURATION, ROOT

OWN = str(Path(CONFIGURATION).relative_to(ROOT))
OLDER = "deploy/gunicorn.conf.py"


@pytest.mark.parametrize("place", [OWN, OLDER])
def test_it_is_that_of_its_folder_wherever_that_was(tmp_path, monkeypatch, place):
    started = Mock()
    monkeypatch.setattr(subprocess, "Popen", started)
    own = tmp_path / place
    own.parent.mkdir(parents=True)
    own.touch()
    Previous(tmp_path).start(["-c", CONFIGURATION, "app:create_app()"], {}, None)
    ((python, *arguments),) = started.call_args.args
    assert python == tmp_path / ".venv" / "bin" / "python"
    assert arguments == ["-m", "gunicorn", "-c", str(own), "app:create_app()"]
    assert started.call_args.kwargs["cwd"] == tmp_path
