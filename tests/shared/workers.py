"""The death of a worker that lives."""

from scripts.workers import kill, workers_of
from tests.shared.waiting import until


def kill_a_worker(master: int) -> int:
    """End one worker of ``master`` that lives, as soon as there is one; return its process id."""
    return until(lambda: next(filter(kill, workers_of(master)), None))
