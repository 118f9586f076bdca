"""JWS: sign, verify, and the MAC."""

from typing import Final

from flask import Blueprint
from flask.typing import ResponseReturnValue

from app.http.operations import OPERATIONS
from app.http.request import perform

blueprint: Final = Blueprint("signing", __name__)


@blueprint.post("/sign")
def sign() -> ResponseReturnValue:
    """Return a JWS over the caller's data."""
    return perform(OPERATIONS["sign"])


@blueprint.post("/verify")
def verify() -> ResponseReturnValue:
    """Tell whether a JWS is valid."""
    return perform(OPERATIONS["verify"])


@blueprint.post("/mac")
def mac() -> ResponseReturnValue:
    """Return the MAC of the caller's data, or tell whether the given one is it."""
    return perform(OPERATIONS["mac"])
