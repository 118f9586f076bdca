"""What connections need of the worker that serves them."""

from typing import Any, Protocol

from app.server.listening.spread import Spread
from app.server.tls import Tls


class Host(Protocol):
    """A worker of gunicorn, as far as its connections know it."""

    PIPE: Any
    alive: bool
    cfg: Any
    is_told: bool
    log: Any
    slot: int
    sockets: Any
    wsgi: Any

    @property
    def spread(self) -> Spread:
        """Return who of all workers takes the next connection."""

    @property
    def tls(self) -> Tls | None:
        """Return the settings of TLS, if it is not plain HTTP."""

    def beat(self) -> None:
        """Tell the master that this worker lives; without a master it stops."""

    def handle_error(self, request: Any, sink: Any, client: Any, error: BaseException) -> None:
        """Write the answer to a request that cannot be read into ``sink``."""

    def is_ending(self) -> bool:
        """Count a request; tell whether its connection should end with it."""

    def note(self, method: str, status: int) -> None:
        """Look whether a client was served."""
