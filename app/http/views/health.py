"""What programs that watch the service ask; nobody needs to authenticate for it."""

from typing import Final

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from app.errors import NotReady
from app.http.request import service
from hsm import Phase

blueprint: Final = Blueprint("health", __name__)

REGISTRY: Final = "registry"
"""Beside those of the token, the one cause for not being ready."""


@blueprint.get("/health/live")
def live() -> ResponseReturnValue:
    """Tell that the process answers."""
    return {"status": "live"}


@blueprint.get("/health/ready")
def ready() -> ResponseReturnValue:
    """Tell whether requests can be served, from what is known already: never ask the token."""
    state = service().hsm.state
    if state.phase is not Phase.READY:
        raise NotReady(state.phase, state.cause, state.reason)
    if service().watch.is_lost:
        raise NotReady(Phase.UNAVAILABLE, REGISTRY, "the registry does not answer")
    return {"state": state.phase, "epoch": state.epoch}


@blueprint.get("/metrics")
def metrics() -> ResponseReturnValue:
    """Return the figures of all workers, in the format of Prometheus."""
    text, content_type = service().metrics.show(request.headers.get("Accept", ""))
    return Response(text, content_type=content_type)
