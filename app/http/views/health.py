"""What programs that watch the service ask; nobody needs to authenticate for it."""

from typing import Final

from flask import Response, request
from flask.typing import ResponseReturnValue

from app.errors import REASONS, NotReady, RegistryCause
from app.http.endpoint import Endpoint, Resource
from app.http.failures import READINESS
from app.http.request import service
from app.observability.kinds import Kind
from hsm import Phase

resource: Final = Resource("health", "For programs that watch the service.", is_public=True)


@resource.serves(
    Endpoint("GET", "/health/live", answers=("Live",), says="It does", kind=Kind.WATCH)
)
def live() -> ResponseReturnValue:
    """Tell that the process answers."""
    return {"status": "live"}


@resource.serves(
    Endpoint(
        "GET",
        "/health/ready",
        answers=("Ready",),
        says="They can",
        kind=Kind.WATCH,
        failures=READINESS,
    )
)
def ready() -> ResponseReturnValue:
    """Tell whether requests can be served, from what is known already: never ask the token."""
    state = service().hsm.state
    if state.phase is not Phase.READY:
        raise NotReady(state.phase, state.cause, state.reason)
    if cause := service().watch.cause:
        phase = Phase.STARTING if cause is RegistryCause.STARTING else Phase.UNAVAILABLE
        raise NotReady(phase, cause, REASONS[cause])
    return {"state": state.phase, "epoch": state.epoch}


@resource.serves(
    Endpoint(
        "GET",
        "/metrics",
        says="The figures",
        media_types=("text/plain", "application/openmetrics-text"),
        kind=Kind.WATCH,
    )
)
def metrics() -> ResponseReturnValue:
    """Return the figures of all workers, in the format of Prometheus."""
    accepted = request.headers.get("Accept", "")
    text, content_type = service().metrics.show(accepted, service().stock)
    return Response(text, content_type=content_type)
