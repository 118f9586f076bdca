"""The service's own settings, with faults in each worker. For tests only: it is never packaged."""

# ruff: noqa: N999  # the name that gunicorn's own has

import runpy
from pathlib import Path

from tests.faults.control import obey

globals().update(runpy.run_path(str(Path(__file__).parents[2] / "deploy" / "gunicorn.conf.py")))
_post_fork = globals()["post_fork"]


def post_fork(server, worker):
    _post_fork(server, worker)
    obey()
