"""What this service can do."""

from typing import Final

from flask import Blueprint
from flask.typing import ResponseReturnValue

from app.http.request import service

blueprint: Final = Blueprint("capabilities", __name__)


@blueprint.get("/capabilities")
def show() -> ResponseReturnValue:
    """Return what is offered, and where the limits are."""
    return service().capabilities.describe(service().hsm.offers())
