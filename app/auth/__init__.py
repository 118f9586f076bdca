"""Who is calling. Without configured authentication everybody on loopback is ``anonymous``."""

from typing import Final

from app import current_request
from app.rights import Principal

ANONYMOUS: Final = "anonymous"


def principal() -> Principal:
    """Return the principal of the current request; raise ``LookupError`` if it has none."""
    record = current_request.current()
    if record is None or record.principal is None:
        raise LookupError("the request has not been authenticated")
    return record.principal


def caller() -> Principal | None:
    """Return the principal for a log; ``None`` for a request that has not been authenticated."""
    record = current_request.current()
    return record.principal if record else None
