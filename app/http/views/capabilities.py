"""What this service can do."""

from typing import Final, cast

from flask import Blueprint, current_app
from flask.typing import ResponseReturnValue

from app.http.request import token
from app.keys.capabilities import Capabilities

blueprint: Final = Blueprint("capabilities", __name__)


@blueprint.get("/capabilities")
def show() -> ResponseReturnValue:
    """Return what is offered, and where the limits are."""
    capabilities = cast(Capabilities, current_app.extensions["capabilities"])
    return capabilities.describe(token().offers())
