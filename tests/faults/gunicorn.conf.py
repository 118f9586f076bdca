"""The service's own settings, with faults in each worker. For tests only: it is never packaged."""
# ruff: noqa: N999  # the name that the service's own has

import runpy

from app.operator.serving import CONFIGURATION
from tests.faults.control import obey

_own = runpy.run_path(str(CONFIGURATION))
assert "post_fork" not in _own, "it would be lost"
globals().update(_own)


def post_fork(server, worker):
    obey(worker)
