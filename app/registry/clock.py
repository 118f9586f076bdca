"""How long connections are in use."""

import time
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Engine, event

_STARTED: Final = "started"


def time_use(engine: Engine, observe: Callable[[float], None]) -> None:
    """Tell ``observe`` the seconds from each checkout of a connection to its return."""

    def start(_connection: object, record: Any, _proxy: object) -> None:
        record.info[_STARTED] = time.perf_counter()

    def end(_connection: object, record: Any) -> None:
        observe(time.perf_counter() - record.info.pop(_STARTED, time.perf_counter()))

    event.listen(engine, "checkout", start)
    event.listen(engine, "checkin", end)
